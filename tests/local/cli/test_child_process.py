"""Child processes of ``exec``: exit statuses and forwarded signals."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest
from console import CTRL_C, press
from terminal import Terminal

from mnist_deploy.local.cli.child_process import run_command

# `exec` without the local workspace.
RUNNER = (
    "import os, sys; from mnist_deploy.local.cli.child_process import run_command;"
    "sys.exit(run_command(sys.argv[1:], os.environ))"
)


POSIX = pytest.mark.skipif(sys.platform == "win32", reason="Windows has neither sh nor signals")
WINDOWS = pytest.mark.skipif(sys.platform != "win32", reason="other systems have a terminal")


@POSIX
@pytest.mark.parametrize(
    ("command", "status"),
    [("exit 7", 7), ("kill -TERM $$", 128 + signal.SIGTERM), ("test $A = b", 0)],
)
def test_exit_status_of_the_command_is_returned(command, status):
    before = signal.getsignal(signal.SIGTERM)
    assert run_command(["sh", "-c", command], {**os.environ, "A": "b"}) == status
    assert signal.getsignal(signal.SIGTERM) == before


def test_exit_status_of_a_python_command_is_returned():
    exit_with_a = "import os, sys; sys.exit(int(os.environ['A']))"
    command = [sys.executable, "-c", exit_with_a]
    assert run_command(command, {**os.environ, "A": "7"}) == 7


@pytest.mark.parametrize("command", ["no-such-command", os.devnull])
def test_unknown_command_is_reported(command):
    with pytest.raises(OSError, match="WinError 2" if sys.platform == "win32" else command):
        run_command([command], os.environ)


def catching(number: signal.Signals) -> list[str]:
    """A command that prints each signal that it receives, with a count."""
    script = (
        "import signal, sys, time; caught = []\n"
        f"signal.signal({number.value}, lambda *_: caught.append(1))\n"
        "print('ready', flush=True)\n"
        "while not caught: time.sleep(0.02)\n"
        "time.sleep(0.2); print('caught', len(caught)); sys.exit(9)"
    )
    return [sys.executable, "-c", RUNNER, sys.executable, "-c", script]


@POSIX
@pytest.mark.parametrize(
    "name",
    [
        "SIGTERM",
        *(
            pytest.param(name, marks=pytest.mark.processes)
            for name in ("SIGHUP", "SIGINT", "SIGQUIT")
        ),
    ],
)
def test_signal_outside_a_terminal_is_forwarded_to_the_command(name):
    number = signal.Signals[name]
    process = subprocess.Popen(
        catching(number), stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    assert process.communicate(timeout=30)[0] == "caught 1\n"
    assert process.returncode == 9


@POSIX
@pytest.mark.processes
@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_signal_to_a_foreground_process_is_forwarded_to_its_command(name):
    number = signal.Signals[name]
    terminal = Terminal(*catching(number))
    terminal.read_until("ready")
    os.kill(terminal.pid, number)
    terminal.read_until("caught 1")
    assert terminal.end() == 9


@POSIX
@pytest.mark.processes
def test_ctrl_c_in_a_terminal_reaches_the_command_once():
    terminal = Terminal(*catching(signal.SIGINT))
    terminal.read_until("ready")
    terminal.type("\x03")
    terminal.read_until("caught 1")
    assert terminal.end() == 9


@POSIX
@pytest.mark.processes
def test_interrupt_of_a_background_process_is_forwarded_to_its_command():
    shell = 'set -m; "$@" & echo "pid $!."; wait $!; echo "status $?."'
    terminal = Terminal("bash", "-c", shell, "bash", *catching(signal.SIGINT))
    pid = int(terminal.read_until(r"pid (\d+)\.")[1])
    terminal.read_until("ready")
    os.kill(pid, signal.SIGINT)
    terminal.read_until("caught 1")
    terminal.read_until(r"status 9\.")
    assert terminal.end() == 0


@WINDOWS
def test_ctrl_c_in_a_console_of_windows_reaches_the_command_once():
    done = press(CTRL_C, *catching(signal.SIGINT))
    assert done.stdout.splitlines() == ["ready", "caught 1"], done.stderr
    assert done.returncode == 9
