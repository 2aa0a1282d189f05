"""The metrics of a run: their order, their types, and their last values."""

from __future__ import annotations

import pytest

from mnist_deploy.local.core.faults import NotFound
from mnist_deploy.local.core.metrics import Metric


@pytest.fixture
def metrics(runs):
    """The metrics of a store with the run r1."""
    runs.create(runs.create_experiment("digits"), "r1")
    return runs.metrics


def values(*pairs: tuple[str, float]) -> tuple[dict, ...]:
    return tuple({"createdUtc": when, "data": {"loss": value}} for when, value in pairs)


def test_values_that_arrive_in_another_order_are_read_in_the_order_of_logging(metrics):
    """azureml-core's RunHistoryFacade sends batches by several threads, and cuts zeros off."""
    late = values(("2026-01-01T00:00:00.52Z", 3), ("2026-01-01T00:00:00.521Z", 4))
    early = values(("2026-01-01T00:00:00.5149Z", 1), ("2026-01-01T00:00:00.51495Z", 2))
    for batch in (late, early):
        metrics.log("r1", [Metric("loss", {"loss": "double"}, "scalar", batch)])
    assert [each["data"]["loss"] for each in metrics.get("r1", "loss").values] == [1, 2, 3, 4]
    assert metrics.last_numbers("r1") == {"loss": 4}


def test_last_numbers_leave_out_texts_and_tables(metrics):
    same_time = values(("2026-01-01T00:00:00Z", 1), ("2026-01-01T00:00:00Z", 2))
    table = ({"data": {"x": 1, "y": 2}},)
    metrics.log("r1", [
        Metric("loss", {"loss": "double"}, "scalar", same_time),
        Metric("note", {"note": "string"}, "scalar", ({"data": {"note": "text"}},)),
        Metric("table", {"x": "int", "y": "int"}, "table", table),
        Metric("empty", {"empty": "double"}, "scalar", ()),
    ])  # fmt: skip
    assert metrics.last_numbers("r1") == {"loss": 2}


def test_metrics_keep_their_order_and_first_types(metrics):
    for value in (1, 2.5):
        columns = {"loss": "Int" if value == 1 else "Double"}
        values = ({"metricId": str(value), "data": {"loss": value}},)
        metrics.log("r1", [Metric("loss", columns, "scalar", values)])
    found = metrics.get("r1", "loss")
    assert [each["data"]["loss"] for each in found.values] == [1, 2.5]
    assert found.columns == {"loss": "Int"}
    with pytest.raises(NotFound):
        metrics.get("r1", "accuracy")
    with pytest.raises(NotFound):
        metrics.log("r2", [])
