"""Logged models of MLflow 3.

The files of a logged model are artifacts of the run that logged it, in a folder with the model's
name. Its other fields are kept in the record of that run.
"""

from __future__ import annotations

import uuid
from typing import Any

from flask import Blueprint, Response, jsonify
from msgspec import Struct, to_builtins

from ..bodies import Document, body
from ..core.faults import Invalid, NotFound
from ..core.records import now
from ..core.runs import Run
from .experiments import find_experiment
from .fields import API, Entry, PageSize, milliseconds, runs, select_page
from .runs import artifact_uri, change_own_fields, own_fields
from .search import Fields, parse_filter, select_documents

CALL = f"{API}/logged-models"
DEFAULT_NAME = "model"

logged_model_api = Blueprint("logged_models", __name__)


class LoggedModelRequest(Struct):
    experiment_id: str
    name: str | None = None
    model_type: str = ""
    source_run_id: str = ""
    params: list[Entry] = []
    tags: list[Entry] = []


class SortOrder(Struct):
    field_name: str
    ascending: bool = True


class ModelSearch(Struct):
    experiment_ids: list[str] = []
    filter: str = ""
    order_by: list[SortOrder] = []
    max_results: PageSize = 100
    page_token: str | None = None


class AddedEntries(Struct):
    params: list[Entry] = []
    tags: list[Entry] = []


class StatusRequest(Struct):
    status: str


def find_source_run(model_id: str) -> Run:
    """The run that logged a model; the id of a model contains the id of its run."""
    run = runs().find(model_id.removeprefix("m-").rpartition("-")[0])
    if run is None or model_id not in own_fields(run).get("models", {}):
        raise NotFound("logged model", model_id)
    return run


def store_model(run: Run, model_id: str, model: dict[str, Any]) -> Response:
    models = own_fields(run).get("models", {}) | {model_id: model}
    return model_response(change_own_fields(run.id, models=models), model_id)


def model_response(run: Run, model_id: str) -> Response:
    return jsonify(model=serialize_model(run, model_id))


def serialize_model(run: Run, model_id: str) -> Document:
    model = own_fields(run)["models"][model_id]
    info = {
        "model_id": model_id,
        "experiment_id": run.experiment,
        "name": model["name"],
        "creation_timestamp_ms": milliseconds(model["created"]),
        "last_updated_timestamp_ms": milliseconds(model["created"]),
        "artifact_uri": f"{artifact_uri(run)}/{model['name']}",
        "status": model["status"],
        "model_type": model["type"],
        "source_run_id": run.id,
        "tags": model["tags"],
    }
    return {"info": info, "data": {"params": model["params"], "metrics": []}}


@logged_model_api.post(CALL)
def create_logged_model(**_: str) -> Response:
    requested = body(LoggedModelRequest)
    if not requested.source_run_id:
        raise Invalid(
            "logged model",
            "source_run_id is empty: expected the id of a run. Log the model inside "
            "'with mlflow.start_run():'.",
        )
    model = {
        "name": requested.name or DEFAULT_NAME,
        "created": now(),
        "status": "LOGGED_MODEL_PENDING",
        "type": requested.model_type,
        "params": to_builtins(requested.params),
        "tags": to_builtins(requested.tags),
    }
    with runs().store.transaction():
        run = runs().get(requested.source_run_id)
        return store_model(run, f"m-{run.id}-{uuid.uuid4().hex[:8]}", model)


@logged_model_api.post(f"{CALL}/search")
def search_logged_models(**_: str) -> Response:
    requested = body(ModelSearch)
    is_selected = parse_filter(requested.filter)
    documents = [
        serialize_model(run, model_id)
        for experiment_id in requested.experiment_ids
        for run in runs().select_runs(find_experiment(experiment_id).id)
        for model_id in own_fields(run).get("models", {})
    ]
    orders = [
        f"{each.field_name} {'ASC' if each.ascending else 'DESC'}" for each in requested.order_by
    ]
    found = select_documents(documents, searchable_fields, is_selected, orders)
    page, following = select_page(found, requested.max_results, requested.page_token)
    return jsonify(models=page, **following)


def searchable_fields(model: Document) -> Fields:
    tags = {each["key"]: each["value"] for each in model["info"]["tags"]}
    params = {each["key"]: each["value"] for each in model["data"]["params"]}
    return {"attributes": model["info"], "tags": tags, "params": params, "metrics": {}}


@logged_model_api.get(f"{CALL}/<model_id>")
def get_logged_model(model_id: str, **_: str) -> Response:
    return model_response(find_source_run(model_id), model_id)


@logged_model_api.patch(f"{CALL}/<model_id>")
def finalize_logged_model(model_id: str, **_: str) -> Response:
    status = body(StatusRequest).status
    if status not in ("LOGGED_MODEL_READY", "LOGGED_MODEL_UPLOAD_FAILED"):
        raise Invalid(
            "status",
            f"status is {status!r}: expected LOGGED_MODEL_READY or LOGGED_MODEL_UPLOAD_FAILED.",
        )
    with runs().store.transaction():
        run = find_source_run(model_id)
        return store_model(run, model_id, own_fields(run)["models"][model_id] | {"status": status})


@logged_model_api.post(f"{CALL}/<model_id>/params")
@logged_model_api.patch(f"{CALL}/<model_id>/tags")
def add_entries(model_id: str, **_: str) -> Response:
    sent = to_builtins(body(AddedEntries))
    with runs().store.transaction():
        run = find_source_run(model_id)
        model = own_fields(run)["models"][model_id]
        for kind, new in sent.items():
            names = [each["key"] for each in new]
            kept = [each for each in model[kind] if each["key"] not in names]
            model = model | {kind: kept + new}
        return store_model(run, model_id, model)
