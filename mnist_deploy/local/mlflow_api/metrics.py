"""Metrics of runs, as MLflow logs and reads them.

MLflow reads only those metrics of run history whose values are single numbers.
"""

from __future__ import annotations

import uuid
from typing import Any, Literal

from flask import Blueprint, Response, jsonify
from msgspec import Struct

from ..bodies import Document, body, query
from ..core.metrics import Metric
from .fields import (
    API,
    Integer,
    Milliseconds,
    PageSize,
    iso_time,
    milliseconds,
    runs,
    select_page,
)

CALL = f"{API}/runs"
SCALAR = "azureml.v1.scalar"
NOT_FINITE = ("NaN", "Infinity", "-Infinity")  # sent as texts, because JSON has no such numbers

metric_api = Blueprint("metrics", __name__)


class MetricEntry(Struct):
    key: str
    value: float | Literal["NaN", "Infinity", "-Infinity"]
    timestamp: Milliseconds
    step: Integer = 0


class MetricRequest(MetricEntry, kw_only=True):
    run_id: str


class MetricHistoryQuery(Struct):
    run_id: str
    metric_key: str
    max_results: PageSize = 25000
    page_token: str | None = None


def log_values(run_id: str, values: list[MetricEntry]) -> None:
    """Append values to metrics, in the form in which azureml-core logs single numbers."""
    metrics = [
        Metric(
            each.key,
            {each.key: "double"},
            SCALAR,
            (
                {
                    "metricId": str(uuid.uuid4()),
                    "createdUtc": iso_time(each.timestamp),
                    "step": each.step,
                    "data": {each.key: each.value},
                },
            ),
        )
        for each in values
    ]
    runs().metrics.log(run_id, metrics)


def read_values(run_id: str, name: str) -> list[Document]:
    """The logged numbers of a metric; a number without a step gets its position as step."""
    values = []
    for position, each in enumerate(runs().metrics.get(run_id, name).values):
        value: Any = each.get("data", {}).get(name)
        if isinstance(value, int | float) or value in NOT_FINITE:
            step = each.get("step")
            values.append(
                {
                    "key": name,
                    "value": value,
                    "timestamp": read_time(each.get("createdUtc", "")),
                    "step": position if step is None else step,
                }
            )
    return values


def read_time(time: str) -> int:
    try:
        return max(milliseconds(time), 0)
    except (ValueError, OverflowError):  # a client of run history may send any text
        return 0


def last_values(run_id: str) -> list[Document]:
    """The value of the last step of each metric that is a number."""
    last = []
    for name, columns, _ in runs().metrics.names(run_id):
        values = read_values(run_id, name) if list(columns) == [name] else []
        if values:
            last.append(max(values, key=lambda each: (each["step"], each["timestamp"])))
    return last


@metric_api.post(f"{CALL}/log-metric")
def log_metric(**_: str) -> Response:
    requested = body(MetricRequest)
    log_values(requested.run_id, [requested])
    return jsonify({})


@metric_api.get(f"{API}/metrics/get-history")
def get_history(**_: str) -> Response:
    requested = query(MetricHistoryQuery)
    known = [name for name, _, _ in runs().metrics.names(runs().get(requested.run_id).id)]
    values = (
        read_values(requested.run_id, requested.metric_key) if requested.metric_key in known else []
    )
    page, following = select_page(values, requested.max_results, requested.page_token)
    return jsonify(metrics=page, **following)
