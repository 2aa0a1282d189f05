"""The liveness probe of one scoring process, at the intervals that its deployment sets."""

from __future__ import annotations

from ..platforms import ProbeSettings
from .process import ScoringProcess

START_TIMEOUT = 600.0  # seconds: the upper limit of init(), even if the settings allow more


class LivenessProbe:
    """Decides when a process is probed, and when it must be restarted.

    On Azure the probe is a request that an instance answers when ``init()`` has returned. Here it
    is a message on the control channel, which a process answers from its event loop, or at once
    while a request runs within its time limit.

    Parameters
    ----------
    settings : ProbeSettings
    process : ScoringProcess
    now : float
        The time of the monotonic clock.

    Attributes
    ----------
    due : float
        The time of the monotonic clock at which `step` must be called at the latest.
    """

    def __init__(self, settings: ProbeSettings, process: ScoringProcess, now: float) -> None:
        self._settings = settings
        self._process = process
        allowed = settings.initial_delay + settings.failure_threshold * settings.period
        self._init_limit = min(allowed, START_TIMEOUT)
        self._first = now + settings.initial_delay
        self._is_ready = self._is_awaiting = False
        self._number = self._failures = 0
        self._sent = now
        self.due = now + self._init_limit

    def step(self, now: float) -> str | None:
        """Send a probe or evaluate the last one, if due; return a reason to kill the process."""
        if self._process.is_ready and not self._is_ready:
            self._is_ready, self.due = True, max(now, self._first)
        if now < self.due:
            return None
        if not self._is_ready:
            return self._describe_slow_init()
        if self._is_awaiting:
            return self._judge()
        self._number += 1
        self._process.ping(self._number)
        self._is_awaiting, self._sent = True, now
        self.due = now + self._settings.timeout
        return None

    def _judge(self) -> str | None:
        self._is_awaiting = False
        self.due = self._sent + max(self._settings.period, self._settings.timeout)
        self._failures = 0 if self._process.pong >= self._number else self._failures + 1
        if self._failures < self._settings.failure_threshold:
            return None
        return (
            f"its liveness probe failed {self._failures} times in a row: it did not react within "
            f"{self._settings.timeout:g} s"
        )

    def _describe_slow_init(self) -> str:
        settings = self._settings
        return (
            f"init() did not return within {self._init_limit:g} s, which the liveness probe allows "
            f"(initial_delay {settings.initial_delay:g} s, then failure_threshold "
            f"{settings.failure_threshold} times period {settings.period:g} s)"
        )
