"""Signals of POSIX systems, and the alarm that interrupts the main thread: SIGALRM."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any

TERMINATION_SIGNALS = (signal.SIGTERM, signal.SIGHUP)
FORWARDED_SIGNALS = (signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGHUP)
TERMINAL_SIGNALS = (signal.SIGINT, signal.SIGQUIT)  # from the keyboard, to the whole foreground
BROKEN_PIPE = signal.SIGPIPE


def on_alarm(handler: Callable[..., Any]) -> None:
    """Call `handler` in the main thread when the time of `set_alarm` has passed."""
    signal.signal(signal.SIGALRM, handler)


def set_alarm(seconds: float) -> float:
    """Set the alarm, or cancel it with 0; return the remaining seconds of the previous alarm."""
    return signal.setitimer(signal.ITIMER_REAL, seconds)[0]


def block_signals() -> None:
    """Block all signals in this thread, so that other threads receive them."""
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())


def stop_signals() -> tuple[tuple[int, ...], ...]:
    """Return the signals that stop a process, one tuple for each attempt."""
    return (signal.SIGCONT, signal.SIGTERM), (signal.SIGKILL,)


def signal_of(status: int) -> int | None:
    """Return the signal encoded in a shell's exit status; None without one."""
    number = status - 128
    return number if 0 < number < signal.NSIG else None
