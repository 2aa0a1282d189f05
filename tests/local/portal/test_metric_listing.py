"""The metrics of a run as JSON for the page: points of curves, texts, rows, files."""

from __future__ import annotations

import math

import pytest

from mnist_deploy.local.core.metrics import Metric
from mnist_deploy.local.portal import metric_listing
from mnist_deploy.local.portal.metric_listing import MetricListing, serialize_metric, thin_out


def metric(*values: object, steps: tuple = (), columns: dict | None = None) -> Metric:
    logged = [{"data": {"m": value}} for value in values]
    for each, step in zip(logged, steps, strict=False):
        each["step"] = step
    return Metric("m", columns or {"m": "double"}, "scalar", tuple(logged))


def test_series_has_last_lowest_and_highest_value():
    shown = serialize_metric(metric(3, 1, 2))
    assert (shown["kind"], shown["count"], shown["axis"]) == ("series", 3, "value")
    assert (shown["last"], shown["least"], shown["greatest"]) == (2, 1, 3)
    assert shown["points"] == [(0, 3), (1, 1), (2, 2)]


def test_values_are_ordered_by_step():
    shown = serialize_metric(metric(5, 4, 6, steps=(10, 0, 20)))
    assert (shown["axis"], shown["last"]) == ("step", 6)
    assert shown["points"] == [(0, 4), (10, 5), (20, 6)]
    assert serialize_metric(metric(5, 4, steps=(0, 0)))["points"] == [(0, 5), (1, 4)]
    assert serialize_metric(metric(5, 4, steps=(7, None)))["axis"] == "value"


@pytest.mark.parametrize("value", ["NaN", math.nan, math.inf, None, [1], {"a": 1}, 10**400])
def test_non_finite_values_are_counted_and_not_drawn(value):
    shown = serialize_metric(metric(1, value, 2))
    assert (shown["skipped"], shown["points"]) == (1, [(0, 1), (2, 2)])


def test_thinned_out_curve_keeps_its_ends_and_its_peaks():
    points = [(float(x), math.sin(x)) for x in range(10_000)]
    points[7777] = (7777.0, 50.0)
    points[1234] = (1234.0, -50.0)
    kept = thin_out(points)
    assert len(kept) <= metric_listing.MAX_POINTS
    assert {points[0], points[1234], points[7777], points[-1]} <= set(kept)
    assert kept == sorted(kept)
    assert thin_out(points[:200]) == points[:200]


def test_texts_rows_and_files_are_listed_with_bounded_length():
    texts = serialize_metric(metric(*["x" * 1000] * 100))
    assert (texts["kind"], len(texts["texts"]), len(texts["texts"][0])) == ("texts", 50, 202)
    logged = tuple({"data": {f"c{n}": n for n in range(30)}} for _ in range(70))
    rows = serialize_metric(Metric("t", {f"c{n}": "int" for n in range(30)}, "table", logged))
    assert (rows["kind"], rows["count"], len(rows["rows"]), len(rows["columns"])) == (
        "rows", 70, 50, 20)  # fmt: skip
    uri = "aml://artifactId/ExperimentRun/dcid.r1/plots/curve.png"
    file = serialize_metric(metric(uri, columns={"m": "Artifact"}))
    assert (file["kind"], file["file"]) == ("file", "plots/curve.png")


def test_metric_without_values_is_listed():
    assert serialize_metric(metric())["kind"] == "texts"


def test_metrics_are_read_again_only_after_new_values(runs, run, monkeypatch):
    runs.metrics.log("r1", [metric(1)])
    listing = MetricListing(runs.metrics)
    assert [each["last"] for each in listing.serialize("r1")] == [1]
    with monkeypatch.context() as patch:
        patch.delattr(type(runs.metrics), "get")
        assert [each["last"] for each in listing.serialize("r1")] == [1]
    runs.metrics.log("r1", [metric(2)])
    assert [each["last"] for each in listing.serialize("r1")] == [2]
