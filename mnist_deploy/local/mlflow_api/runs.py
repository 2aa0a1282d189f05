"""Runs: the routes by which MLflow creates, changes and searches them."""

from __future__ import annotations

import dataclasses
import uuid
from typing import Any

from flask import Blueprint, Response, jsonify, request
from msgspec import Struct

from ..bodies import Document, body, query
from ..core.faults import Invalid
from ..core.runs import Run
from ..rest import state
from .experiments import VIEWS, find_experiment
from .fields import (
    API,
    Entry,
    Milliseconds,
    PageSize,
    entries,
    milliseconds,
    runs,
    select_page,
)
from .metrics import MetricEntry, last_values, log_values
from .search import Fields, parse_filter, select_documents

CALL = f"{API}/runs"
PARENT_TAG = "mlflow.parentRunId"
NAME_TAG = "mlflow.runName"
STATUSES = {  # status of run history -> status of MLflow
    "NotStarted": "SCHEDULED",
    "Queued": "SCHEDULED",
    "Completed": "FINISHED",
    "Failed": "FAILED",
    "Canceled": "KILLED",
}
STATUSES_OF_MLFLOW = {  # status of MLflow -> status of run history
    "SCHEDULED": "Queued",
    "RUNNING": "Running",
    "FINISHED": "Completed",
    "FAILED": "Failed",
    "KILLED": "Canceled",
}

run_api = Blueprint("runs", __name__)


class RunId(Struct):
    run_id: str


class RunRequest(Struct):
    experiment_id: str
    run_name: str = ""
    user_id: str = ""
    start_time: Milliseconds = 0
    tags: list[Entry] = []


class RunUpdate(RunId):
    status: str = ""
    run_name: str = ""


class EntryRequest(Entry, kw_only=True):
    run_id: str


class LogBatch(RunId):
    metrics: list[MetricEntry] = []
    params: list[Entry] = []
    tags: list[Entry] = []


class TagKey(RunId):
    key: str


class LogInputs(RunId):
    datasets: list[dict[str, Any]] = []
    models: list[dict[str, Any]] = []


class RunSearch(Struct):
    experiment_ids: list[str] = []
    filter: str = ""
    run_view_type: str = "ACTIVE_ONLY"
    max_results: PageSize = 1000
    order_by: list[str] = []
    page_token: str | None = None


def artifact_uri(run: Run) -> str:
    """The URI to which a client uploads the files of a run.

    MLflow's own client uploads by the routes of this package, azureml-mlflow by run history.
    """
    workspace = request.path.partition("/subscriptions/")[2].partition("/api/")[0]
    if not workspace:
        return f"mlflow-artifacts:/{run.experiment}/{run.id}/artifacts"
    experiment = runs().get_experiment(run.experiment).name
    scope = f"/history/v1.0/subscriptions/{workspace}"
    return f"azureml://{state().host}{scope}/experiments/{experiment}/runs/{run.id}/artifacts"


def own_fields(run: Run) -> dict[str, Any]:
    """The fields of a run that only MLflow's API has."""
    return run.other.get("mlflow", {})


def change_own_fields(run_id: str, **fields: Any) -> Run:
    return runs().change(
        run_id,
        lambda run: dataclasses.replace(
            run, other=run.other | {"mlflow": own_fields(run) | fields}
        ),
    )


def serialize_run(run: Run) -> Document:
    fields = own_fields(run)
    info = {
        "run_id": run.id,
        "run_uuid": run.id,
        "run_name": run.name or run.id,
        "experiment_id": run.experiment,
        "user_id": fields.get("user", ""),
        "status": STATUSES.get(run.status, "RUNNING"),
        "start_time": milliseconds(run.started or run.created),
        "artifact_uri": artifact_uri(run),
        "lifecycle_stage": "active",
    }
    if run.ended:
        info["end_time"] = milliseconds(run.ended)
    data = {
        "metrics": last_values(run.id),
        "params": entries(fields.get("params", {})),
        "tags": entries(run.tags),
    }
    inputs = {"dataset_inputs": fields.get("datasets", [])}
    outputs = {"model_outputs": fields.get("outputs", [])}
    return {"info": info, "data": data, "inputs": inputs, "outputs": outputs}


@run_api.post(f"{CALL}/create")
def create_run(**_: str) -> Response:
    requested = body(RunRequest)
    tags: dict[str, str | None] = {tag.key: tag.value for tag in requested.tags}
    with runs().store.transaction():
        run = runs().create(
            find_experiment(requested.experiment_id),
            str(uuid.uuid4()),
            tags.get(PARENT_TAG) or "",
            name=requested.run_name or tags.get(NAME_TAG) or "",
            tags=({NAME_TAG: requested.run_name} if requested.run_name else {}) | tags,
            other={"mlflow": {"user": requested.user_id}},
        )
        run = runs().set_status(run.id, "Running")
    return jsonify(run=serialize_run(run))


@run_api.get(f"{CALL}/get")
def get_run(**_: str) -> Response:
    return jsonify(run=serialize_run(runs().get(query(RunId).run_id)))


@run_api.post(f"{CALL}/update")
def update_run(**_: str) -> Response:
    """Change the name or the status of a run.

    The status of a run of the job engine is determined by its process, and not changed here.
    """
    requested = body(RunUpdate)
    if requested.status and requested.status not in STATUSES_OF_MLFLOW:
        known = ", ".join(STATUSES_OF_MLFLOW)
        raise Invalid("status", f"status is {requested.status!r}: expected {known}.")
    run = runs().get(requested.run_id)
    if requested.run_name:
        name = requested.run_name
        run = runs().change(
            run.id,
            lambda run: dataclasses.replace(run, name=name, tags=run.tags | {NAME_TAG: name}),
        )
    if requested.status and run.kind == "interactive":
        run = runs().set_status(run.id, STATUSES_OF_MLFLOW[requested.status])
    return jsonify(run_info=serialize_run(run)["info"])


@run_api.post(f"{CALL}/search")
def search_runs(**_: str) -> Response:
    requested = body(RunSearch)
    if requested.run_view_type not in VIEWS:
        raise Invalid(
            "view type",
            f"run_view_type is {requested.run_view_type!r}: expected {', '.join(VIEWS)}.",
        )
    is_selected = parse_filter(requested.filter)
    chosen = {find_experiment(each).id for each in requested.experiment_ids}
    records = runs().select_runs() if False in VIEWS[requested.run_view_type] else []
    documents = [serialize_run(run) for run in records if run.experiment in chosen]
    found = select_documents(documents, searchable_fields, is_selected, requested.order_by)
    page, following = select_page(found, requested.max_results, requested.page_token)
    return jsonify(runs=page, **following)


def searchable_fields(run: Document) -> Fields:
    fields: dict[str, dict[str, Any]] = {
        kind: {each["key"]: each["value"] for each in run["data"][kind]}
        for kind in ("params", "tags")
    }
    metrics = {each["key"]: float(each["value"]) for each in run["data"]["metrics"]}
    return {"attributes": run["info"], "metrics": metrics, **fields}


def add_params(run_id: str, params: list[Entry]) -> None:
    """Log parameters.

    Raises
    ------
    Invalid
        If a parameter was logged before with another value.
    """
    with runs().store.transaction():
        known = own_fields(runs().get(run_id)).get("params", {})
        for each in params:
            if known.get(each.key, each.value) != each.value:
                raise Invalid(
                    "parameter",
                    f"Parameter {each.key} of run {run_id} is {known[each.key]!r} already, and "
                    f"cannot become {each.value!r}: log it under another name.",
                )
            known[each.key] = each.value
        change_own_fields(run_id, params=known)


def set_tags(run_id: str, tags: list[Entry]) -> None:
    sent: dict[str, str | None] = {tag.key: tag.value for tag in tags}
    runs().change(
        run_id,
        lambda run: dataclasses.replace(
            run, tags=run.tags | sent, name=sent.get(NAME_TAG) or run.name
        ),
    )


@run_api.post(f"{CALL}/log-parameter")
def log_parameter(**_: str) -> Response:
    requested = body(EntryRequest)
    add_params(requested.run_id, [requested])
    return jsonify({})


@run_api.post(f"{CALL}/set-tag")
def set_tag(**_: str) -> Response:
    requested = body(EntryRequest)
    set_tags(requested.run_id, [requested])
    return jsonify({})


@run_api.post(f"{CALL}/delete-tag")
def delete_tag(**_: str) -> Response:
    requested = body(TagKey)

    def change(run: Run) -> Run:
        tags = {tag: value for tag, value in run.tags.items() if tag != requested.key}
        return dataclasses.replace(run, tags=tags)

    runs().change(requested.run_id, change)
    return jsonify({})


@run_api.post(f"{CALL}/log-batch")
@run_api.post(f"{CALL}/log-batch-async")
def log_batch(**_: str) -> Response:
    """Log metrics, parameters and tags in one transaction, also for ``log-batch-async``."""
    requested = body(LogBatch)
    with runs().store.transaction():
        runs().get(requested.run_id)
        add_params(requested.run_id, requested.params)
        set_tags(requested.run_id, requested.tags)
        log_values(requested.run_id, requested.metrics)
    return jsonify({})


@run_api.post(f"{CALL}/log-inputs")
def log_inputs(**_: str) -> Response:
    """Record which data sets a run has read."""
    requested = body(LogInputs)
    with runs().store.transaction():
        known = own_fields(runs().get(requested.run_id)).get("datasets", [])
        new = [each for each in requested.datasets if each not in known]
        change_own_fields(requested.run_id, datasets=[*known, *new])
    return jsonify({})


@run_api.post(f"{CALL}/outputs")
def log_outputs(**_: str) -> Response:
    """Record which models a run has logged."""
    requested = body(LogInputs)
    with runs().store.transaction():
        known = own_fields(runs().get(requested.run_id)).get("outputs", [])
        change_own_fields(requested.run_id, outputs=[*known, *requested.models])
    return jsonify({})
