"""The folders of programs; `session_hooks` and `scoring` test the modules that are written."""

from __future__ import annotations

import sys
import sysconfig

from mnist_deploy.local.start_modules import program_folders


def test_program_folders_are_those_of_the_interpreter_and_of_installed_programs(
    tmp_path, monkeypatch
):
    """As on Windows: without a virtual environment there are two, in one there is one."""
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python.exe"))
    for scripts, expected in [(tmp_path / "Scripts", [tmp_path, tmp_path / "Scripts"]),
                              (tmp_path, [tmp_path])]:  # fmt: skip
        monkeypatch.setattr(sysconfig, "get_path", {"scripts": str(scripts)}.get)
        assert program_folders() == expected
