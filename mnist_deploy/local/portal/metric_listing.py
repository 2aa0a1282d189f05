"""The listed metrics of a run, for the page and ``show``: points of a curve, texts, rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Any

from ..core.metrics import Metric, Metrics

ARTIFACT = "Artifact"  # the type of a column that names files
MAX_METRICS = 100  # of one run
MAX_POINTS = 200  # of one curve
MAX_ROWS = 50  # of one table
MAX_COLUMNS = 20
MAX_TEXT = 200  # characters of a value
CACHED_RUNS = 16

Shown = dict[str, Any]
Point = tuple[float, float]


class MetricListing:
    """Lists the metrics of a store's runs, with a cache for the latest listed runs."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._serialize = lru_cache(CACHED_RUNS)(self._serialize_at)

    def serialize(self, run_id: str) -> list[Shown]:
        """Return the first `MAX_METRICS` metrics of a run, in alphabetical order."""
        return self._serialize(run_id, self._metrics.last_position(run_id))

    def _serialize_at(self, run_id: str, position: int) -> list[Shown]:
        names = [name for name, _, _ in self._metrics.names(run_id)[:MAX_METRICS]]
        return [serialize_metric(self._metrics.get(run_id, name)) for name in names]


def serialize_metric(metric: Metric) -> Shown:
    """Serialize a metric with the `kind` ``series``, ``texts``, ``rows`` or ``file``."""
    shown: Shown = {"name": metric.name, "count": len(metric.values)}
    if list(metric.columns) != [metric.name]:
        return shown | serialize_rows(metric)
    values = [each.get("data", {}).get(metric.name) for each in metric.values]
    if metric.columns[metric.name] == ARTIFACT and values:
        return shown | {"kind": "file", "file": name_of_artifact(str(values[-1]))}
    numbers = [as_number(value) for value in values]
    if all(number is None for number in numbers):
        return shown | {"kind": "texts", "texts": [as_text(each) for each in values[-MAX_ROWS:]]}
    steps = [as_number(each.get("step")) for each in metric.values]
    has_steps = None not in steps and len(set(steps)) > 1
    positions = steps if has_steps else range(len(values))
    points = [
        (float(x), y)
        for x, y in zip(positions, numbers, strict=True)
        if x is not None and y is not None
    ]
    if has_steps:
        points.sort(key=lambda point: point[0])
    y_values = [y for _, y in points]
    return shown | {
        "kind": "series",
        "last": y_values[-1],
        "least": min(y_values),
        "greatest": max(y_values),
        "skipped": len(values) - len(points),
        "axis": "step" if has_steps else "value",
        "points": thin_out(points),
    }


def name_of_artifact(uri: str) -> str:
    """Return NAME, a file of the run, of ``aml://artifactId/ExperimentRun/dcid.RUN/NAME``."""
    return uri.partition("/dcid.")[2].partition("/")[2]


def serialize_rows(metric: Metric) -> Shown:
    columns = list(metric.columns)[:MAX_COLUMNS]
    rows = [
        [as_text(each.get("data", {}).get(column)) for column in columns]
        for each in metric.values[:MAX_ROWS]
    ]
    return {"kind": "rows", "columns": columns, "rows": rows}


def as_number(value: Any) -> float | None:
    """Convert a value to a finite number, or None."""
    try:
        return float(value) if isinstance(value, int | float) and math.isfinite(value) else None
    except OverflowError:  # an integer of hundreds of digits
        return None


def as_text(value: Any) -> str:
    text = "" if value is None else str(value)
    return text if len(text) <= MAX_TEXT else f"{text[:MAX_TEXT]} …"


def thin_out(points: Sequence[Point]) -> list[Point]:
    """Return at most `MAX_POINTS` points: the first, the last, and the extremes of each section.

    The extremes preserve the peaks of the curve.
    """
    if len(points) <= MAX_POINTS:
        return list(points)
    count = MAX_POINTS // 2 - 1
    edges = [len(points) * number // count for number in range(count + 1)]
    kept = {0, len(points) - 1}
    for start, end in pairwise(edges):
        section = range(start, end)
        kept |= {min(section, key=lambda n: points[n][1]), max(section, key=lambda n: points[n][1])}
    return [points[n] for n in sorted(kept)]
