"""``serve`` in the background; on Windows, PowerShell lines and keys of a console.

``test_exec.py`` tests ``serve`` in a terminal.
"""

from __future__ import annotations

import os
import signal
import sys

import pytest
from console import CTRL_C, press
from polling import wait_until
from terminal import LOCAL, run, runs_from

from mnist_deploy.local.cli.serve import export_lines

pytestmark = pytest.mark.processes
WINDOWS = pytest.mark.skipif(
    sys.platform != "win32", reason="other systems have a shell and a terminal"
)


@pytest.fixture
def home(tmp_path, monkeypatch):
    """The home folder of the local workspace of one test."""
    monkeypatch.setenv("MNIST_DEPLOY_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("REQUESTS_CA_BUNDLE", raising=False)
    return tmp_path / "home"


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The working directory of the commands."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


@WINDOWS
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


def test_serve_in_the_background_outlives_its_caller_until_stop(here, home):
    started = run("serve", "--bare", "--background")
    try:
        assert started.returncode == 0, started.stderr
        if sys.platform == "win32":
            assert "\n$env:MSI_ENDPOINT = 'https://127.0.0.1:" in started.stdout
            assert "PowerShell" in started.stderr
        else:
            assert "export MSI_ENDPOINT=" in started.stdout
        assert "local stop" in started.stderr
        assert (here / ".azureml" / "config.json").is_file()
        assert runs_from(home)
    finally:
        stopped = run("stop")
    assert "Stopped" in stopped.stdout
    wait_until(lambda: not runs_from(home) and not any(here.iterdir()), 10)
    assert "No local workspace runs" in run("stop").stdout


@WINDOWS
def test_ctrl_c_ends_serve_and_the_workspace(here, home):
    done = press(CTRL_C, *LOCAL, "serve", "--bare")
    assert done.returncode == 128 + signal.SIGINT, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    wait_until(lambda: not runs_from(home), 10)
    assert not (here / ".azureml").exists()
