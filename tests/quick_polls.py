"""The SDKs' own sleeps between two requests, shortened: they sleep by a fixed time."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType, SimpleNamespace

import pytest

LONGEST_SLEEP = 0.2  # seconds


@contextmanager
def shorten_sleeps(*modules: ModuleType) -> Iterator[None]:
    """Let the modules sleep for a fifth of a second at most."""
    quick = SimpleNamespace(
        time=time.time, sleep=lambda seconds: time.sleep(min(seconds, LONGEST_SLEEP))
    )
    with pytest.MonkeyPatch.context() as patch:
        for module in modules:
            patch.setattr(module, "time", quick)
        yield
