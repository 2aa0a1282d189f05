"""Waiting for conditions in tests."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TypeVar

import psutil

Result = TypeVar("Result")
# Time-outs are longer by this factor where wine starts a Python process in seconds.
PATIENCE = 6 if sys.platform == "win32" else 1


def wait_until(condition: Callable[[], Result], seconds: float = 20.0) -> Result:
    """Wait until `condition` returns a true value, and return that value."""
    seconds *= PATIENCE
    deadline = time.monotonic() + seconds
    while not (result := condition()):
        assert time.monotonic() < deadline, f"the condition was not met within {seconds} s"
        time.sleep(0.02)
    return result


def is_running(pid: int) -> bool:
    """Whether a process runs; one that has ended and is not yet reaped does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
