"""How many requests a process has answered, and how long they took."""

from __future__ import annotations

import bisect

from .control_channel import ControlChannel


class Counts:
    """Requests since the process began, reported to the container when they have changed.

    Parameters
    ----------
    buckets : list of float
        Upper bounds of the durations that are counted together, in seconds.
    """

    def __init__(self, buckets: list[float]) -> None:
        self._buckets = buckets
        self._requests = self._failed = self._reported = 0
        self._histogram = [0] * (len(buckets) + 1)

    def add(self, status: int, seconds: float) -> None:
        self._requests += 1
        self._failed += status >= 400
        self._histogram[bisect.bisect_left(self._buckets, seconds)] += 1

    def send(self, control: ControlChannel) -> None:
        if self._requests != self._reported:
            self._reported = self._requests
            control.send(requests=self._requests, failed=self._failed, histogram=self._histogram)
