"""Telemetry: log lines that Microsoft's server sends to Application Insights, request counts."""

from __future__ import annotations

import uuid
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

MAX_TRACES = 1_000  # log lines of one endpoint
MAX_TRACE_LENGTH = 4_000  # characters

# The upper bounds of the histogram's buckets, in seconds; a last bucket has no bound.
BUCKETS = [0.0005 * 2 ** (step / 2) for step in range(40)]
# The counts of a container. ``failed``: requests answered with status 400 or above. ``histogram``:
# the number of requests in each bucket of durations.
NO_REQUESTS: dict[str, Any] = {
    "requests": 0,
    "failed": 0,
    "histogram": [0] * (len(BUCKETS) + 1),
}


@dataclass
class Telemetry:
    """The log lines that one endpoint sends to Application Insights, in bounded memory.

    Attributes
    ----------
    key : str
        The instrumentation key: only a sender that has the key is accepted.
    traces : deque of (str, str)
        Time in ISO 8601, and the text that the script printed or raised.
    """

    key: str = field(default_factory=lambda: str(uuid.uuid4()), repr=False)
    traces: deque[tuple[str, str]] = field(default_factory=lambda: deque(maxlen=MAX_TRACES))

    def trace(self, time: str, text: str) -> None:
        self.traces.append((time, text[:MAX_TRACE_LENGTH]))

    def variables(self, ingestion: str, folder: Path) -> dict[str, str]:
        """The environment variables that make Microsoft's server send to `ingestion`.

        The exporter stores unsent telemetry in `folder`, which is deleted with the container.
        """
        return {
            "AML_APP_INSIGHTS_ENABLED": "true",
            "AML_APP_INSIGHTS_KEY": self.key,
            "APPLICATIONINSIGHTS_CONNECTION_STRING": (
                f"InstrumentationKey={self.key};IngestionEndpoint={ingestion}"
            ),
            # Otherwise the exporter sends statistics about itself to Microsoft.
            "APPLICATIONINSIGHTS_STATSBEAT_DISABLED_ALL": "true",
            "TMPDIR": str(folder),
        }


def summary_of(counts: Mapping[str, Any], bounds: Sequence[float]) -> dict[str, Any]:
    """Summarize the counts of a container.

    Parameters
    ----------
    counts : mapping
        In the form of `NO_REQUESTS`.
    bounds : sequence of float
        The upper bounds of the histogram's buckets, without the last bucket.

    Returns
    -------
    dict
        ``requests``, ``failed``, ``p50`` and ``p95`` in seconds, None before the first request.
    """
    histogram = counts["histogram"]
    return {
        "requests": counts["requests"],
        "failed": counts["failed"],
        "p50": quantile(histogram, bounds, 0.5),
        "p95": quantile(histogram, bounds, 0.95),
    }


def quantile(histogram: Sequence[int], bounds: Sequence[float], share: float) -> float | None:
    """The seconds within which `share` of the requests were answered; None without requests.

    Durations within a bucket are assumed to be distributed uniformly. In the last bucket, which
    has no bound, its lower bound is returned.
    """
    rank, below, low = share * sum(histogram), 0, 0.0
    for count, high in zip(histogram, [*bounds, bounds[-1]], strict=False):
        if count and below + count >= rank:
            return low + (high - low) * (rank - below) / count
        below, low = below + count, high
    return None


def sum_counts(*counts: Mapping[str, Any]) -> dict[str, Any]:
    """The sum of the counts of several containers; an empty mapping counts nothing."""
    known = [each for each in counts if each]
    return {
        "requests": sum(each["requests"] for each in known),
        "failed": sum(each["failed"] for each in known),
        "histogram": [sum(n) for n in zip(*(each["histogram"] for each in known), strict=True)],
    }


# The variables of a service without telemetry; they override those of its environment.
NO_TELEMETRY = {"AML_APP_INSIGHTS_ENABLED": "false"}
