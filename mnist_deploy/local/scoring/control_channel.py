"""The line to the container: who may ask comes in, what was done goes out, its end is ours."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..authorization import is_authorized


@dataclass(frozen=True)
class AccessPolicy:
    """Who is let in, and how; described where it is sent from, in ``core/container.py``."""

    keys: list[str] | None
    tokens: dict[str, float]
    public: bool
    model_error: int | None
    max_pending: int | None
    deployment: str | None

    def is_authorized(self, authorization: str) -> bool:
        return is_authorized(authorization, self.keys, self.tokens)


class ControlChannel:
    """Reads standard input in a thread, and ends the process and its family at its end.

    However busy the script may be: the thread waits, and no signal can be held back.

    Parameters
    ----------
    report : int
        File descriptor of a pipe to the container, for lines of JSON.
    mark : str
        What all that this process starts has in its environment.

    Attributes
    ----------
    access : AccessPolicy
        What the last line said.
    on_change : callable
        Called in the thread, with the line's number, when `access` has changed: it confirms.
    """

    access: AccessPolicy

    def __init__(self, report: int, mark: str) -> None:
        self.on_change: Callable[[int], Any] = self.confirm
        self._report = report
        self._mark = mark
        os.set_blocking(report, False)
        self._lines = open(os.dup(0), "rb")  # noqa: SIM115 - as long as the process lives
        with open(os.devnull, "rb") as nothing:  # for the script, and for what it starts
            os.dup2(nothing.fileno(), 0)
        self._follow(self._lines.readline())
        threading.Thread(target=self._listen, daemon=True, name="control").start()

    def send(self, **message: Any) -> None:
        """Send the container a line; dropped if it reads none any more."""
        with contextlib.suppress(BlockingIOError, BrokenPipeError):
            os.write(self._report, json.dumps(message).encode() + b"\n")

    def confirm(self, number: int) -> None:
        """Tell the container that what its line said holds from now on."""
        self.send(configured=number)

    def _listen(self) -> None:
        # Signals are for the main thread: that of the scoring time-out must wake it, not us.
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        while True:
            self._follow(self._lines.readline())

    def _follow(self, line: bytes) -> None:
        if not line:
            from ..process_tree import kill_process_tree  # psutil, which is needed only now

            kill_process_tree(self._mark, os.getpid())
            os.killpg(0, signal.SIGKILL)
        message = json.loads(line)
        number = message.pop("number")
        self.access = AccessPolicy(**message)
        self.on_change(number)
