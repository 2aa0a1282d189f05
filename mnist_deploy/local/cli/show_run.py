"""The lines of ``show RUN``: status, metrics with small curves, lineage, files, end of the log."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

BARS = "▁▂▃▄▅▆▇█"
CURVE_WIDTH = 24  # characters
LOG_LINES = 20


def run_lines(run: dict[str, Any]) -> Iterator[str]:
    """All that ``show`` prints of a run, as the control plane describes it."""
    title = run["id"] if run["name"] in ("", run["id"]) else f"{run['id']}  {run['name']}"
    yield f"{title}  {run['status']}"
    yield f"  {run['kind']}, experiment {run['experiment']}"
    if run["started"]:
        yield f"  started {run['started'][:19].replace('T', ' ')}, {duration_of(run)}"
    yield from (f"  {line}" for line in run["error"].splitlines())
    yield from (f"  warning: {text}" for text in run["warnings"])
    for section, lines in (
        ("Metrics", [metric_line(metric) for metric in run["metrics"]]),
        ("Data", [input_line(**each) for each in run["inputs"]]),
        ("Models", [model_line(model) for model in run["models"]]),
        ("Files", [f"{file['name']}  {file['size']} bytes" for file in run["files"]]),
        ("End of the log", run["log"].splitlines()[-LOG_LINES:]),
    ):
        if lines:
            yield f"{section}:"
            yield from (f"  {line}" for line in lines)


def metric_line(metric: dict[str, Any]) -> str:
    name, count = metric["name"], metric["count"]
    if metric["kind"] == "series":
        points = [y for _, y in metric["points"]]
        if len(points) == 1:
            return f"{name}  {metric['last']:.4g}"
        span = f"{metric['least']:.3g} to {metric['greatest']:.3g}, {count} values"
        return f"{name}  {metric['last']:.4g}  {draw_curve(points)}  {span}"
    if metric["kind"] == "texts":
        return f"{name}  {', '.join(metric['texts'][-3:])}"
    if metric["kind"] == "file":
        return f"{name}  in the file {metric['file']}"
    return f"{name}  table of {count} rows: {', '.join(metric['columns'])}"


def draw_curve(values: Sequence[float]) -> str:
    """A curve of block characters, from the lowest value to the highest."""
    width = min(len(values), CURVE_WIDTH)
    drawn = [values[(len(values) - 1) * place // (width - 1)] for place in range(width)]
    low, high = min(values), max(values)
    scale = (len(BARS) - 1) / (high - low) if high > low else 0.0
    return "".join(BARS[round((value - low) * scale)] for value in drawn)


def input_line(input: str, kind: str, name: str) -> str:
    return f"{name}  {kind}, input {input}" if input else f"{name}  {kind}"


def model_line(model: dict[str, Any]) -> str:
    users = ", ".join(user["name"] for user in model["used_by"])
    return f"{model['id']}  used by {users}" if users else model["id"]


def duration_of(run: dict[str, Any]) -> str:
    """How long a run took, or has taken until now."""
    if not run["started"]:
        return ""
    end = datetime.fromisoformat(run["ended"]) if run["ended"] else datetime.now(UTC)
    return f"{(end - datetime.fromisoformat(run['started'])).total_seconds():.1f} s"


def printable(text: str) -> str:
    """Text without characters that a terminal obeys: those of users may hold any."""
    return "".join(
        each if each.isprintable() or each in "\n\t" else "\N{REPLACEMENT CHARACTER}"
        for each in text
    )
