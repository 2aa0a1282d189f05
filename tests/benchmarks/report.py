"""The benchmark's figures as Markdown tables, compared with their targets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any

from slow_clients import SLOW_CLIENTS
from ways import WAYS

Figures = dict[str, Any]
UNKNOWN = "-"


@dataclass(frozen=True)
class Target:
    """A figure with its minimum requirement (`must`) and its goal.

    Attributes
    ----------
    must, goal : float
        If the goal is the smaller one, less is better.
    """

    title: str
    unit: str
    must: float
    goal: float
    figure: Callable[[Figures], float]

    def check(self, figures: Figures) -> dict[str, Any]:
        try:
            value = self.figure(figures)
        except (KeyError, TypeError, ValueError, IndexError, ZeroDivisionError):
            return {"title": self.title, "value": None, "verdict": "not measured"}
        sign = 1 if self.goal > self.must else -1
        if sign * value >= sign * self.goal:
            verdict = "goal met"
        elif sign * value >= sign * self.must:
            verdict = f"must met; goal missed by {abs(value / self.goal - 1):.0%}"
        else:
            verdict = f"missed by {abs(value / self.must - 1):.0%}"
        limits = {"must": self.must, "goal": self.goal, "unit": self.unit}
        return {"title": self.title, "value": value, **limits, "verdict": verdict}


def seconds(figures: Figures, way: str) -> float:
    return figures["ways"][way]["median_seconds"]


def times_faster(figures: Figures, way: str) -> float:
    return seconds(figures, "tutorial") / seconds(figures, way)


def best_peer(figures: Figures, *, undocumented: bool) -> float:
    """Return the seconds of the fastest way of any peer."""
    return min(
        seconds(figures, way.name)
        for way in WAYS
        if way.client == "http"
        and (way.is_documented or undocumented)
        and "median_seconds" in figures["ways"].get(way.name, {})
    )


def per_second(figures: Figures, way: str, connections: int) -> float:
    return figures["ways"][way]["one_image"][str(connections)]["per_second"]


def times_as_many(figures: Figures, way: str, connections: int) -> float:
    """Requests per second, of one image, against the best peer."""
    peers = [each.name for each in WAYS if each.client == "http"]
    measured = [name for name in peers if figures["ways"].get(name, {}).get("one_image")]
    return per_second(figures, way, connections) / max(
        per_second(figures, name, connections) for name in measured
    )


def stream_growth(figures: Figures, peak: str) -> float:
    few, many = (figures["stream"][count][peak] for count in sorted(figures["stream"]))
    return many / few


def start_ratio(figures: Figures) -> float:
    return median(figures["start"]["deploy_to_aci"]) / median(
        figures["start"]["mlflow models serve"]
    )


TARGETS = [
    *(Target(f"one image, {title}, {n} connection{'s' * (n > 1)}, against the best peer",
             "times as many", 1.5, 2, partial(times_as_many, way=way, connections=n))
      for way, title in (("json", "JSON"), ("idx", "IDX")) for n in (1, 8, 64)),
    Target("IDX against the tutorial's way", "times faster", 90, 110,
           lambda f: times_faster(f, "idx")),
    Target("JSON by our client against the tutorial's way", "times faster", 8.5, 9,
           lambda f: times_faster(f, "json")),
    Target("IDX against the best peer's best documented way", "times faster", 14, 18,
           lambda f: best_peer(f, undocumented=False) / seconds(f, "idx")),
    Target("IDX against the best peer's best way of all", "times faster", 8, 10,
           lambda f: best_peer(f, undocumented=True) / seconds(f, "idx")),
    Target("server peak, the whole test set by our client", "MB", 175, 165,
           lambda f: f["ways"]["idx"]["server_peak_mb"]),
    Target("client peak, a long stream against a short one", "times", 1.3, 1.02,
           lambda f: stream_growth(f, "client_peak_mb")),
    Target("server peak, a long stream against a short one", "times", 1.3, 1.02,
           lambda f: stream_growth(f, "server_peak_mb")),
    Target("deploy to first answer, against `mlflow models serve`", "times", 0.33, 0.1,
           start_ratio),
    *(Target(f"the next answer beside {group}", "ms", 1000, 10,
             lambda f, group=group: 1000 * f["beside"][group])
      for group in SLOW_CLIENTS),
    Target("`python -m mnist_deploy` on the sample", "s", 45, 25,
           lambda f: median(f["notebook_seconds"])),
]  # fmt: skip


def targets(figures: Figures) -> list[dict[str, Any]]:
    return [target.check(figures) for target in TARGETS]


def markdown(figures: Figures) -> str:
    run = figures["run"]
    began, ended = run["load_average_before"][0], run["load_average_after"][0]
    heading = (
        f"{run['images']:,} images ({run['data']}), medians of {run['rounds']} rounds in turn; "
        f"Python {run['python']}, {run['cores']} cores, load average {began:.1f} before and "
        f"{ended:.1f} after."
    )
    left_out = [
        f"Left out: {way['title']}: {way['left_out']}."
        for way in figures["ways"].values()
        if "left_out" in way
    ]
    tables = [whole_set(figures), one_image(figures), others(figures), verdicts(figures)]
    return "\n\n".join(filter(None, [heading, *left_out, *tables]))


def whole_set(figures: Figures) -> str:
    head = ["way", "seconds", "times faster", "body MB", "server peak MB", "client peak MB",
            "of which scoring", "first answer after s"]  # fmt: skip
    rows = []
    for name, way in figures["ways"].items():
        if "left_out" not in way:
            rows.append(
                [
                    way["title"],
                    number(way["median_seconds"], 3),
                    number(quotient(figures, name), 1),
                    number(way["body_bytes"] / 1e6, 1),
                    number(way["server_peak_mb"]),
                    number(way["client_peak_mb"]),
                    number(way["client_added_mb"]),
                    number(way["seconds_to_start"], 1),
                ]
            )
    return table(head, rows)


def quotient(figures: Figures, name: str) -> float | None:
    try:
        return times_faster(figures, name)
    except (KeyError, TypeError):
        return None


def one_image(figures: Figures) -> str:
    measured = [
        (way["title"], f"{way['one_image_bytes']:,}", way["one_image"])
        for way in figures["ways"].values()
        if way.get("one_image")
    ]
    if not measured:  # without wrk
        return ""
    measured.append(("a script that does nothing", UNKNOWN, figures["server_limit"]))
    head = ["one image", "bytes"]
    for connections in figures["server_limit"]:
        head += [f"requests/s, {connections} conn.", "p50 ms", "p99 ms"]
    rows = []
    for title, size, runs in measured:
        row = [title, size]
        for figure in runs.values():
            row += [number(figure["per_second"])]
            row += [number(figure["p50_ms"], 1), number(figure["p99_ms"], 1)]
        rows.append([*row, number(sum(figure["errors"] for figure in runs.values()))])
    return table([*head, "errors"], rows)


def others(figures: Figures) -> str:
    rows = []
    for count, figure in figures["stream"].items():
        peaks = f"client {number(figure['client_peak_mb'])} MB, "
        peaks += f"server {number(figure['server_peak_mb'])} MB"
        rows.append(
            [f"a stream of {int(count):,} images", f"{figure['seconds']:.2f} s; peak: {peaks}"]
        )
    for group, latency in figures["beside"].items():
        rows.append(
            [f"our next answer beside {group}",
             "more than 20 s" if latency is None else f"{1000 * latency:.0f} ms at most"]
        )  # fmt: skip
    for what, times in figures["start"].items():
        rows.append(
            [f"`{what}` to the first answer", f"{median(times):.2f} s" if times else UNKNOWN]
        )
    rows.append(
        ["`python -m mnist_deploy`, the sample", f"{median(figures['notebook_seconds']):.1f} s"]
    )
    if limit := figures["server_limit"].get("8"):
        ratio = limit["per_second"] / per_second(figures, "tutorial", 8)
        rows.append(
            ["one image at 8 connections, a script that does nothing against the tutorial's",
             f"{ratio:.2f} times as many"]
        )  # fmt: skip
    return table(["besides", "measured"], rows)


def verdicts(figures: Figures) -> str:
    rows = []
    for target in figures["targets"]:
        limits = [number(target.get("must"), 2), number(target.get("goal"), 2)]
        measured = number(target["value"], 2) + " " + target.get("unit", "")
        rows.append([target["title"], *limits, measured.strip(), target["verdict"]])
    return table(["target", "must", "goal", "measured", "verdict"], rows)


def number(value: float | None, digits: int = 0) -> str:
    if value is None:
        return UNKNOWN
    text = f"{value:,.{digits}f}"
    return text.rstrip("0").rstrip(".") if digits == 2 else text


def table(head: list[str], rows: list[list[str]]) -> str:
    """Format a Markdown table with aligned columns."""
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]

    def line(cells: list[str]) -> str:
        padded = [cells[0].ljust(widths[0])]
        padded += [cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True)]
        return f"| {' | '.join(padded)} |"

    rule = "| " + "-" * widths[0] + " | "
    rule += " | ".join("-" * (width - 1) + ":" for width in widths[1:]) + " |"
    return "\n".join([line(head), rule, *(line(row) for row in rows)])
