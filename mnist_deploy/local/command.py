"""Running somebody's command as a shell would: signals go to it, its exit status comes back."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
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
    with _signals_passed_on() as processes, subprocess.Popen(command, env=environment) as process:
        processes.append(process)
        status = process.wait()
    return status if status >= 0 else BY_SIGNAL - status


@contextlib.contextmanager
def _signals_passed_on() -> Iterator[list[subprocess.Popen]]:
    processes: list[subprocess.Popen] = []

    def pass_on(number: int, frame: FrameType | None) -> None:
        if number in (signal.SIGINT, signal.SIGQUIT) and _is_in_foreground():
            return  # the terminal has sent it to the command as well
        for process in processes:
            process.send_signal(number)

    numbers = (signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, pass_on) for number in numbers}
    try:
        yield processes
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _is_in_foreground() -> bool:
    """Whether this process is one of those that the terminal's Ctrl-C reaches."""
    try:
        with open("/dev/tty") as terminal:
            return os.tcgetpgrp(terminal.fileno()) == os.getpgrp()
    except OSError:
        return False
