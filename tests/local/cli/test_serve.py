"""``serve`` on Windows: PowerShell lines and keys of a console; ``test_exec.py`` tests the rest."""

from __future__ import annotations

import os
import signal
import sys

import pytest
from console import CTRL_C, press
from polling import wait_until
from terminal import LOCAL, run, runs_from

from mnist_deploy.local.cli.serve import export_lines

pytestmark = [
    pytest.mark.processes,
    pytest.mark.skipif(sys.platform != "win32", reason="other systems have a shell and a terminal"),
]


@pytest.fixture
def home(tmp_path, monkeypatch):
    """The home folder of the local workspace of one test, which is the working directory too."""
    monkeypatch.setenv("MNIST_DEPLOY_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "home"


def test_lines_for_powershell_quote_values_and_prepend_to_lists(monkeypatch):
    monkeypatch.setenv("PATH", r"C:\Windows")
    monkeypatch.setenv("GONE", "x")
    environment = {**os.environ, "PATH": r"C:\it's mine;C:\Windows", "NEW": "$x `n"}
    del environment["GONE"]
    assert sorted(export_lines(environment)) == [
        "$env:NEW = '$x `n'",
        r"$env:PATH = 'C:\it''s mine' + $(if ($env:PATH) { ';' + $env:PATH })",
        "Remove-Item Env:GONE -ErrorAction Ignore",
    ]


def test_serve_in_the_background_outlives_its_caller_until_stop(home, tmp_path):
    started = run("serve", "--bare", "--background")
    try:
        assert started.returncode == 0, started.stderr
        assert "\n$env:MSI_ENDPOINT = 'https://127.0.0.1:" in started.stdout
        assert "PowerShell" in started.stderr
        assert (tmp_path / ".azureml" / "config.json").is_file()
        assert runs_from(home)
    finally:
        stopped = run("stop")
    assert "Stopped" in stopped.stdout
    wait_until(lambda: not runs_from(home) and not (tmp_path / ".azureml").exists(), 10)
    assert "No local workspace runs" in run("stop").stdout


def test_ctrl_c_ends_serve_and_the_workspace(home, tmp_path):
    done = press(CTRL_C, *LOCAL, "serve", "--bare")
    assert done.returncode == 128 + signal.SIGINT, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    wait_until(lambda: not runs_from(home), 10)
    assert not (tmp_path / ".azureml").exists()
