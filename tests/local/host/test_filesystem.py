"""Locks, logs and files that another process has open; these tests run on each system."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import pytest

from mnist_deploy.local.host import filesystem

LOCK = """
from mnist_deploy.local.host import filesystem
filesystem.lock(open({!r}), shared={}, wait=False)
"""


def locks_elsewhere(file, *, shared: bool = False) -> bool:
    """Whether another process can lock a file."""
    command = [sys.executable, "-c", LOCK.format(str(file), shared)]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 0 or "BlockingIOError" in run.stderr, run.stderr
    return run.returncode == 0


@pytest.mark.processes
def test_lock_excludes_other_processes_and_leaves_the_content_readable(tmp_path):
    file = tmp_path / "lock"
    file.write_text("content")
    with open(file) as locked:
        filesystem.lock(locked)
        assert not locks_elsewhere(file)
        assert file.read_text() == "content"
        filesystem.lock(locked, shared=True)
        assert not locks_elsewhere(file)
        assert locks_elsewhere(file, shared=True)
    assert locks_elsewhere(file)


def test_locked_file_is_removed(tmp_path):
    file = tmp_path / "lock"
    file.touch()
    descriptor = os.open(file, os.O_RDONLY)
    filesystem.lock(descriptor)
    filesystem.remove_locked(file, descriptor)
    assert not file.exists()


@pytest.mark.processes
def test_processes_append_to_one_log(tmp_path):
    file = tmp_path / "log"
    for number in range(2):
        with filesystem.open_log(file) as log:
            log.write(b"own %d\n" % number)
            log.flush()
            command = [sys.executable, "-c", f"print('child {number}')"]
            subprocess.run(command, stdout=log, check=True)
    lines = file.read_text().split("\n")
    assert lines == ["own 0", "child 0", "own 1", "child 1", ""]


@pytest.mark.skipif(sys.platform != "win32", reason="the limit is that of Windows")
def test_path_beyond_the_limit_of_windows_is_explained():
    error = FileNotFoundError(2, "No such file or directory", "C:\\" + "n" * 300)
    assert "The path has 303 characters, and Windows permits 259" in filesystem.explain(error)
    assert filesystem.explain(OSError("no space")) == "no space"


@pytest.mark.skipif(sys.platform != "win32", reason="other systems remove and replace open files")
def test_open_file_is_replaced_after_it_was_closed_and_left_where_it_stays_open(
    tmp_path, monkeypatch
):
    part, file = tmp_path / "part", tmp_path / "file"
    file.write_text("old")
    part.write_text("new")
    reader = open(file)  # noqa: SIM115
    threading.Timer(0.5, reader.close).start()
    filesystem.replace_file(part, file)
    assert file.read_text() == "new"
    monkeypatch.setattr(filesystem, "REMOVE_TIMEOUT", 0.1)
    with open(file):
        filesystem.remove_file(file)
        assert file.exists()
    filesystem.remove_file(file)
    filesystem.remove_file(file)
    assert not file.exists()
