"""The pipes to the container: policies and probes come in, reports go out.

When the control plane ends, the incoming pipe does, and with it this process.
"""

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
    """Which requests are answered; described where it is sent from, in ``core/container.py``."""

    keys: list[str] | None
    tokens: dict[str, float]
    public: bool

    def is_authorized(self, authorization: str) -> bool:
        return is_authorized(authorization, self.keys, self.tokens)


class ControlChannel:
    """Reads standard input in a thread, and kills the process and its descendants at its end.

    However busy the script may be: the thread waits, and no signal can be held back. The
    thread ``control channel`` lives as long as the process.

    Parameters
    ----------
    report : int
        File descriptor of a pipe to the container, for lines of JSON.
    tag : str
        The process tag: every process that this one starts has it in its environment.

    Attributes
    ----------
    access : AccessPolicy
        Of the last line that had one.
    on_change : callable
        Called in the thread, with the line's number, when `access` has changed: it confirms.
    on_ping : callable
        Called in the thread with the number of a liveness probe: it answers.
    """

    access: AccessPolicy

    def __init__(self, report: int, tag: str) -> None:
        self.on_change: Callable[[int], Any] = self.confirm
        self.on_ping: Callable[[int], Any] = lambda number: None  # init() still runs
        self._report = report
        self._tag = tag
        os.set_blocking(report, False)
        self._lines = open(os.dup(0), "rb")  # noqa: SIM115 - as long as the process lives
        with open(os.devnull, "rb") as nothing:  # for the script, and for what it starts
            os.dup2(nothing.fileno(), 0)
        self._apply(self._lines.readline())
        threading.Thread(target=self._listen, daemon=True, name="control channel").start()

    def send(self, **message: Any) -> None:
        """Send the container a line; dropped if the container does not read."""
        with contextlib.suppress(BlockingIOError, BrokenPipeError):
            os.write(self._report, json.dumps(message).encode() + b"\n")

    def confirm(self, number: int) -> None:
        """Report that the policy of that number counts from now on."""
        self.send(configured=number)

    def _listen(self) -> None:
        # Signals are for the main thread: that of the scoring time-out must interrupt the script.
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        while True:
            self._apply(self._lines.readline())

    def _apply(self, line: bytes) -> None:
        if not line:
            from ..process_tree import kill_process_tree  # imports psutil, needed only now

            kill_process_tree(self._tag, os.getpid())
            os.killpg(0, signal.SIGKILL)
        message = json.loads(line)
        if "ping" in message:
            self.on_ping(message["ping"])
            return
        number = message.pop("number")
        self.access = AccessPolicy(**message)
        self.on_change(number)
