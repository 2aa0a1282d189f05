"""What Microsoft's server tells Application Insights of a service, kept here and nowhere else."""

from __future__ import annotations

import threading
import uuid
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

KEPT = 10_000  # durations, of the latest requests
TRACES = 1_000  # lines that were logged
LONGEST_TRACE = 4_000  # characters


# Upper bounds of the durations that are counted together, in seconds; the last has none.
BUCKETS = [0.0005 * 2 ** (step / 2) for step in range(40)]
# The counts of a container: ``failed`` were answered with 400 or above; ``histogram`` has how many
# took up to each of `BUCKETS`, and how many took longer.
NO_REQUESTS: dict[str, Any] = {
    "requests": 0,
    "failed": 0,
    "histogram": [0] * (len(BUCKETS) + 1),
}


@dataclass(frozen=True)
class Request:
    """One request that was answered; `seconds` is told in whole milliseconds."""

    seconds: float
    success: bool


@dataclass
class Telemetry:
    """Counts, durations and lines of one endpoint, in bounded memory.

    Attributes
    ----------
    key : str
        The instrumentation key, which is the secret of who may tell something.
    requests, failed : int
    traces : deque of (str, str)
        When, in ISO 8601, and what the script printed or raised.
    """

    key: str = field(default_factory=lambda: str(uuid.uuid4()), repr=False)
    requests: int = 0
    failed: int = 0
    traces: deque[tuple[str, str]] = field(default_factory=lambda: deque(maxlen=TRACES))
    _seconds: deque[float] = field(default_factory=lambda: deque(maxlen=KEPT))
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def count(self, request: Request) -> None:
        with self._lock:
            self.requests += 1
            self.failed += not request.success
            self._seconds.append(request.seconds)

    def trace(self, time: str, text: str) -> None:
        with self._lock:
            self.traces.append((time, text[:LONGEST_TRACE]))

    def summary(self) -> dict[str, Any]:
        """``requests``, ``failed``, ``p50`` and ``p95`` in seconds, None before the first one."""
        with self._lock:
            seconds = sorted(self._seconds)
            counts = {"requests": self.requests, "failed": self.failed}

        def percentile(share: float) -> float | None:
            return seconds[min(len(seconds) - 1, int(share * len(seconds)))] if seconds else None

        return {**counts, "p50": percentile(0.5), "p95": percentile(0.95)}

    def variables(self, ingestion: str, folder: Path) -> dict[str, str]:
        """The environment variables that make Microsoft's server send to `ingestion`.

        What it could not send it keeps in `folder`, which goes with the container.
        """
        return {
            "AML_APP_INSIGHTS_ENABLED": "true",
            "AML_APP_INSIGHTS_KEY": self.key,
            "APPLICATIONINSIGHTS_CONNECTION_STRING": (
                f"InstrumentationKey={self.key};IngestionEndpoint={ingestion}"
            ),
            # Else the exporter would tell Microsoft about itself.
            "APPLICATIONINSIGHTS_STATSBEAT_DISABLED_ALL": "true",
            "TMPDIR": str(folder),
        }


def summary_of(counts: Mapping[str, Any], bounds: Sequence[float]) -> dict[str, Any]:
    """As `Telemetry.summary`, of a histogram with these upper bounds; it has one count more."""
    histogram = counts["histogram"]
    return {
        "requests": counts["requests"],
        "failed": counts["failed"],
        "p50": quantile(histogram, bounds, 0.5),
        "p95": quantile(histogram, bounds, 0.95),
    }


def quantile(histogram: Sequence[int], bounds: Sequence[float], share: float) -> float | None:
    """The seconds within which `share` of the requests were answered; None if there were none.

    Within a bucket they are taken to be spread evenly; beyond the last there is no telling.
    """
    wanted, seen, low = share * sum(histogram), 0, 0.0
    for count, high in zip(histogram, [*bounds, bounds[-1]], strict=False):
        if count and seen + count >= wanted:
            return low + (high - low) * (wanted - seen) / count
        seen, low = seen + count, high
    return None


def sum_counts(*counts: Mapping[str, Any]) -> dict[str, Any]:
    """The sum of the counts of several containers; an empty mapping counts nothing."""
    known = [each for each in counts if each]
    return {
        "requests": sum(each["requests"] for each in known),
        "failed": sum(each["failed"] for each in known),
        "histogram": [sum(n) for n in zip(*(each["histogram"] for each in known), strict=True)],
    }


# A service that asks for no telemetry tells nothing, whatever its script's variables say.
SILENT = {"AML_APP_INSIGHTS_ENABLED": "false"}
