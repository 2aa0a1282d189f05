"""Running somebody's command as a shell would: signals go to it, its exit status comes back."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from types import FrameType

NOT_FOUND, NOT_EXECUTABLE = 127, 126  # exit statuses, as shells have them
BY_SIGNAL = 128  # and the signal's number


def run_command(command: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run `command` to its end and return its exit status.

    Raises
    ------
    OSError
        If there is no such command, or it cannot be executed.
    """
    relay = SignalRelay()
    with relay, subprocess.Popen(command, env=environment) as process:
        relay.send_to(process)
        status = process.wait()
    return status if status >= 0 else BY_SIGNAL - status


class SignalRelay:
    """Passes this process's signals on to another, those that came before it was there as well."""

    SIGNALS = (signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGHUP)

    def __enter__(self) -> None:
        self._process: subprocess.Popen | None = None
        self._early: list[int] = []
        self._before = {number: signal.signal(number, self._relay) for number in self.SIGNALS}

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def send_to(self, process: subprocess.Popen) -> None:
        self._process = process
        for number in self._early:
            process.send_signal(number)

    def _relay(self, number: int, frame: FrameType | None) -> None:
        if number in (signal.SIGINT, signal.SIGQUIT) and _is_in_foreground():
            return  # the terminal has sent it to the command as well
        if self._process is None:
            self._early.append(number)
        else:
            self._process.send_signal(number)


def _is_in_foreground() -> bool:
    """Whether this process is one of those that the terminal's Ctrl-C reaches."""
    try:
        with open("/dev/tty") as terminal:
            return os.tcgetpgrp(terminal.fileno()) == os.getpgrp()
    except OSError:
        return False
