"""Runs a command as a shell would: signals are passed on, and its exit status is returned."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Mapping, Sequence
from types import FrameType

from ..host import processes, signals, terminal

# Exit statuses, as shells define them.
COMMAND_NOT_FOUND, COMMAND_NOT_EXECUTABLE = 127, 126
SIGNAL_STATUS = 128  # plus the number of the signal that ended the command


def run_command(command: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run `command` to its end and return its exit status.

    Raises
    ------
    OSError
        If there is no such command, or it cannot be executed.
    """
    forwarder = SignalForwarder()
    with (
        forwarder,
        subprocess.Popen(processes.find_command(command, environment), env=environment) as process,
    ):
        forwarder.forward_to(process)
        status = process.wait()
    return status if status >= 0 else SIGNAL_STATUS - status


class SignalForwarder:
    """Forwards this process's signals to a child, also those that arrive before it is started."""

    def __enter__(self) -> None:
        self._process: subprocess.Popen | None = None
        self._early: list[int] = []
        self._before = {
            number: signal.signal(number, self._forward) for number in signals.FORWARDED_SIGNALS
        }

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def forward_to(self, process: subprocess.Popen) -> None:
        self._process = process
        for number in self._early:
            process.send_signal(number)

    def _forward(self, number: int, frame: FrameType | None) -> None:
        if number in signals.TERMINAL_SIGNALS and terminal.is_in_foreground():
            return  # the terminal sends these to the command itself
        if self._process is None:
            self._early.append(number)
        else:
            self._process.send_signal(number)
