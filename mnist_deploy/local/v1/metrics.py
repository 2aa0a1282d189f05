"""Metrics of runs: the routes by which azureml-core and azureml-mlflow log and read them."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response, jsonify
from msgspec import Struct, to_builtins

from ..bodies import Document, body
from ..core.faults import Invalid
from ..core.metrics import Metric
from ..rest import WORKSPACE
from .run_history import runs
from .runs import RUN, find_run

METRICS = f"/metric/v2.0{WORKSPACE}/runs/<run_id>"
MAX_VALUES = 1000  # values in one answer

metric_api = Blueprint("metrics", __name__)


class MetricValue(Struct, rename="camel"):
    metric_id: str = ""
    created_utc: str = ""
    step: int | None = None
    data: dict[str, Any] = {}


class MetricProperties(Struct, rename="camel"):
    ux_metric_type: str = ""


class LoggedMetric(Struct, rename="camel"):
    name: str
    columns: dict[str, str] = {}
    value: list[MetricValue] = []
    properties: MetricProperties | None = None


class MetricBatch(Struct):
    values: list[LoggedMetric]


class MetricQuery(Struct, rename="camel"):
    metric_name: str
    continuation_token: str | None = None


@metric_api.post(f"{METRICS}/batch")
def log_metrics(run_id: str, **_: str) -> Response:
    logged = [
        Metric(
            each.name,
            each.columns,
            (each.properties or MetricProperties()).ux_metric_type,
            tuple(to_builtins(value) for value in each.value),
        )
        for each in body(MetricBatch).values
    ]
    runs().metrics.log(run_id, logged)
    return jsonify(errors=[])


@metric_api.get(f"{RUN}/metricsingest/wait")
def wait_for_ingest(run_id: str, **names: str) -> Response:
    """Respond at once: metrics are stored before the request that logs them is answered."""
    find_run(run_id, **names)
    return Response(status=200)


def serialize_key(container: str, name: str, columns: dict[str, str], kind: str) -> Document:
    return {
        "dataContainerId": container,
        "name": name,
        "columns": columns,
        "properties": {"uxMetricType": kind},
    }


@metric_api.post(f"{METRICS}/list")
def list_metrics(run_id: str, **_: str) -> Response:
    run = runs().get(run_id)
    return jsonify(
        value=[
            {"metricKey": {"name": name}, **serialize_key(run.container, name, columns, kind)}
            for name, columns, kind in runs().metrics.names(run_id)
        ]
    )


@metric_api.post(f"{METRICS}/full")
def get_metric(run_id: str, **_: str) -> Response:
    requested = body(MetricQuery)
    run, metric = runs().get(run_id), runs().metrics.get(run_id, requested.metric_name)
    start = requested.continuation_token or "0"
    if not start.isdecimal():
        raise Invalid(
            "query",
            f"continuationToken is {start!r}: expected the token of the previous response.",
        )
    end = int(start) + MAX_VALUES
    answer = serialize_key(run.container, metric.name, metric.columns, metric.kind)
    answer["value"] = metric.values[int(start) : end]
    if end < len(metric.values):
        answer["continuationToken"] = str(end)
    return jsonify(answer)
