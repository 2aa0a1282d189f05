"""Counts the requests that a scoring process has answered, by status and duration."""

from __future__ import annotations

import bisect

from .control_channel import ControlChannel


class Counts:
    """The counts since the start of the process, reported to the container after a change.

    Parameters
    ----------
    buckets : list of float
        The upper bounds of the histogram's buckets, in seconds.
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
