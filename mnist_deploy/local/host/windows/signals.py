"""Signals of Windows, and the alarm that interrupts the main thread: a timer raises SIGINT."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

assert sys.platform == "win32"  # for mypy

TERMINATION_SIGNALS = (signal.SIGTERM, signal.SIGBREAK)
FORWARDED_SIGNALS = (signal.SIGINT, signal.SIGBREAK, signal.SIGTERM)
TERMINAL_SIGNALS = (signal.SIGINT, signal.SIGBREAK)  # to all processes of the console
BROKEN_PIPE = 13

REPEAT_INTERVAL = 0.05  # seconds


class Alarm:
    """Interrupts the main thread by SIGINT, which also interrupts `time.sleep`.

    SIGINT does not interrupt other blocking C functions, such as ``lock.acquire``. The first call
    of `set` starts the thread ``alarm``.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._due: float | None = None
        self._thread: threading.Thread | None = None
        self._handler: Callable[..., Any] = signal.default_int_handler

    def install(self, handler: Callable[..., Any]) -> None:
        self._handler = handler
        signal.signal(signal.SIGINT, self._interrupt)

    def set(self, seconds: float) -> float:
        with self._changed:
            now = time.monotonic()
            left = 0.0 if self._due is None else max(0.0, self._due - now)
            self._due = now + seconds if seconds else None
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, daemon=True, name="alarm")
                self._thread.start()
            self._changed.notify()
        return left

    def _run(self) -> None:
        with self._changed:
            while True:
                left = None if self._due is None else self._due - time.monotonic()
                if left is None or left > 0:
                    self._changed.wait(left)
                    continue
                signal.raise_signal(signal.SIGINT)
                self._changed.wait(REPEAT_INTERVAL)

    def _interrupt(self, *arguments: Any) -> None:
        """Call the handler unless the alarm was canceled concurrently."""
        due = self._due
        if due is not None and time.monotonic() >= due:
            self._due = None
            self._handler(*arguments)


alarm = Alarm()
on_alarm, set_alarm = alarm.install, alarm.set


def block_signals() -> None:
    """Do nothing: Python calls signal handlers in the main thread, which SIGINT wakes."""


def stop_signals() -> tuple[tuple[int, ...], ...]:
    return ((signal.SIGTERM,),)  # which kills


def signal_of(status: int) -> int | None:
    return None
