"""Child processes of ``exec``: exit statuses and forwarded signals."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest
from terminal import Terminal

from mnist_deploy.local.cli.child_process import run_command

# `exec` without the local workspace.
RUNNER = (
    "import os, sys; from mnist_deploy.local.cli.child_process import run_command;"
    "sys.exit(run_command(sys.argv[1:], os.environ))"
)


@pytest.mark.parametrize(
    ("command", "status"),
    [("exit 7", 7), ("kill -TERM $$", 128 + signal.SIGTERM), ("test $A = b", 0)],
)
def test_exit_status_of_the_command_is_returned(command, status):
    before = signal.getsignal(signal.SIGTERM)
    assert run_command(["sh", "-c", command], {**os.environ, "A": "b"}) == status
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.parametrize("command", ["no-such-command", "/dev/null"])
def test_unknown_command_is_reported(command):
    with pytest.raises(OSError, match=command):
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


@pytest.mark.parametrize(
    "number",
    [
        signal.SIGTERM,
        *(
            pytest.param(number, marks=pytest.mark.processes)
            for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT)
        ),
    ],
)
def test_signal_outside_a_terminal_is_forwarded_to_the_command(number):
    process = subprocess.Popen(
        catching(number), stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    assert process.communicate(timeout=30)[0] == "caught 1\n"
    assert process.returncode == 9


@pytest.mark.processes
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_signal_to_a_foreground_process_is_forwarded_to_its_command(number):
    terminal = Terminal(*catching(number))
    terminal.read_until("ready")
    os.kill(terminal.pid, number)
    terminal.read_until("caught 1")
    assert terminal.end() == 9


@pytest.mark.processes
def test_ctrl_c_in_a_terminal_reaches_the_command_once():
    terminal = Terminal(*catching(signal.SIGINT))
    terminal.read_until("ready")
    terminal.type("\x03")
    terminal.read_until("caught 1")
    assert terminal.end() == 9


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
