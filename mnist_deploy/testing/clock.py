"""Time as the SDK and `deploy_to_aci` see it while they wait for a mocked service."""

from __future__ import annotations

import time
from typing import Any

LONGEST = 24 * 3600.0  # seconds


class Clock:
    """The module `time`, but that sleeping takes none of it."""

    def __init__(self) -> None:
        self._slept = 0.0
        self._pace = 1.0

    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)

    def time(self) -> float:
        return time.time() + self._slept

    def monotonic(self) -> float:
        return time.monotonic() + self._slept

    def sleep(self, seconds: float) -> None:
        self._slept += seconds * self._pace
        self._pace *= 1.1  # so that a long wait is a few dozen steps
        if self._slept > LONGEST:
            raise TimeoutError(
                "This would wait for ever: the deployment was told never to finish. Pass "
                "wait_for_deployment a timeout_sec."
            )
