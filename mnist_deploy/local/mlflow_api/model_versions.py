"""Versions of MLflow's registered models, which both SDKs of Azure list and deploy as models.

Behavior of Azure's model registry with MLflow:
https://learn.microsoft.com/azure/machine-learning/how-to-manage-models-mlflow
"""

from __future__ import annotations

import dataclasses
import re
from typing import Any

from flask import Blueprint, Response, jsonify, request
from msgspec import Struct

from .. import rest
from ..bodies import Document, body, query
from ..core.faults import Invalid
from ..core.records import Model, now
from ..core.runs import Run
from ..rest import store
from ..validation import check_asset_name
from .artifacts import find_artifact_path
from .fields import API, Entry, PageSize, entries, milliseconds, runs, select_page
from .logged_models import find_source_run
from .runs import own_fields
from .search import Fields, parse_filter, select_documents

CALL = f"{API}/model-versions"
MODEL_FILE = "MLmodel"
STAGES = ("None", "Staging", "Production", "Archived")
RUN_URI = re.compile(r"runs:/([^/]+)/(.+)")
LOGGED_URI = re.compile(r"models:/(m-[^/]+)")
VERSION_URI = re.compile(r"models:/([^/]+)/(\d+)")
PLAIN_URI = re.compile(r"mlflow-artifacts:(?://[^/]*)?/(.+)")
HISTORY_URI = re.compile(r"azureml://[^/]+/history/.+/runs/([^/]+)/artifacts/(.+)")
UPLOAD_URI = re.compile(r"azureml://artifacts/(.+)")

model_version_api = Blueprint("model_versions", __name__)


class VersionRequest(Struct):
    name: str
    source: str
    run_id: str = ""
    model_id: str | None = None
    description: str = ""
    tags: list[Entry] = []


class VersionId(Struct):
    name: str
    version: str


class Update(VersionId):
    description: str = ""


class Transition(VersionId):
    stage: str
    archive_existing_versions: bool = False


class TagRequest(Entry, kw_only=True):
    name: str
    version: str


class TagKey(VersionId):
    key: str


class Search(Struct):
    filter: str = ""
    max_results: PageSize = 10000
    page_token: str | None = None


def stage_of(model: Model) -> str:
    return model.other.get("mlflow", {}).get("stage", STAGES[0])


def latest_versions(name: str) -> list[Model]:
    """Return the newest version of each stage in use, the oldest first."""
    newest: dict[str, Model] = {}
    for model in store().versions(Model, name):
        known = newest.get(stage_of(model))
        if known is None or model.version > known.version:
            newest[stage_of(model)] = model
    return sorted(newest.values(), key=lambda model: model.version)


def download_uri(model: Model) -> str:
    """Return the URI from which the requesting client downloads the version's files."""
    if "/subscriptions/" in request.path:
        return f"azureml://artifacts/{model.path}"
    return f"mlflow-artifacts:/models/{model.name}/{model.version}"


def serialize_version(model: Model) -> Document:
    fields = model.other.get("mlflow", {})
    return {
        "name": model.name,
        "version": str(model.version),
        "creation_timestamp": milliseconds(model.created),
        "last_updated_timestamp": milliseconds(model.created),
        "current_stage": stage_of(model),
        "description": model.description,
        "source": fields.get("source", download_uri(model)),
        "run_id": model.other.get("v1", {}).get("runId") or "",
        "model_id": fields.get("model_id") or "",
        "status": "READY",
        "tags": entries(model.tags),
    }


def find_source(source: str) -> tuple[str, Run | None]:
    """Return the artifact path of a source, and the run that logged the artifacts, if any.

    Raises
    ------
    Invalid
        If the source is not the URI of a model in this workspace.
    """
    if match := RUN_URI.fullmatch(source) or HISTORY_URI.fullmatch(source):
        run = runs().get(match[1])
        return f"{run.artifacts}/{match[2]}", run
    if match := LOGGED_URI.fullmatch(source):
        run = find_source_run(match[1])
        return f"{run.artifacts}/{own_fields(run)['models'][match[1]]['name']}", run
    if match := VERSION_URI.fullmatch(source):
        model = store().get(Model, match[1], match[2])
        return model.path, runs().find(model.other.get("v1", {}).get("runId") or "")
    if match := PLAIN_URI.fullmatch(source):
        run, path = find_artifact_path(match[1])
        return path, run
    if match := UPLOAD_URI.fullmatch(source):
        return match[1], None
    raise Invalid(
        "source",
        f"{source!r} is not the URI of a model in this workspace. Expected runs:/RUN_ID/PATH or "
        "models:/NAME/VERSION; a local folder is registered by its file:// URI if the tracking "
        "URI is ws.get_mlflow_tracking_uri().",
    )


@model_version_api.post(f"{CALL}/create")
def create_model_version(**_: str) -> Response:
    """Register the files of a run, a logged model or another version as the next version."""
    requested = body(VersionRequest)
    check_asset_name("model", requested.name)
    with store().transaction():
        path, run = find_source(requested.source)
        path = path.rstrip("/")
        if store().artifact(f"{path}/{MODEL_FILE}") is None:
            raise Invalid(
                "source",
                f"{requested.source!r} holds no file {MODEL_FILE}. Expected the folder that "
                "mlflow.sklearn.log_model() or save_model() wrote; register other models with an "
                "SDK of Azure.",
            )
        model = Model(
            requested.name,
            0,
            (path,),
            now(),
            description=requested.description,
            tags={tag.key: tag.value for tag in requested.tags},
            other={
                "v1": name_run(run) if run else {},
                "v2": {"model_type": "mlflow_model"},
                "mlflow": {"source": requested.source, "model_id": requested.model_id},
            },
        )
        return version_response(store().add(model))


def name_run(run: Run) -> dict[str, Any]:
    return {"runId": run.id, "experimentName": runs().get_experiment(run.experiment).name}


def version_response(model: Model) -> Response:
    return jsonify(model_version=serialize_version(model))


def find_version(requested: VersionId) -> Model:
    return store().get(Model, requested.name, requested.version)


def change(requested: VersionId | TagRequest, **fields: Any) -> Model:
    return store().change(
        Model,
        requested.name,
        requested.version,
        lambda model: dataclasses.replace(model, **fields),
    )


@model_version_api.get(f"{CALL}/get")
def get_model_version(**_: str) -> Response:
    return version_response(find_version(query(VersionId)))


@model_version_api.get(f"{CALL}/get-download-uri")
def get_download_uri(**_: str) -> Response:
    return jsonify(artifact_uri=download_uri(find_version(query(VersionId))))


@model_version_api.patch(f"{CALL}/update")
def update_model_version(**_: str) -> Response:
    requested = body(Update)
    return version_response(change(requested, description=requested.description))


@model_version_api.post(f"{CALL}/set-tag")
def set_model_version_tag(**_: str) -> Response:
    requested = body(TagRequest)
    with store().transaction():
        tags = store().get(Model, requested.name, requested.version).tags
        return version_response(change(requested, tags=tags | {requested.key: requested.value}))


@model_version_api.delete(f"{CALL}/delete-tag")
def delete_model_version_tag(**_: str) -> Response:
    requested = body(TagKey)
    with store().transaction():
        tags = find_version(requested).tags
        kept = {key: value for key, value in tags.items() if key != requested.key}
        return version_response(change(requested, tags=kept))


@model_version_api.post(f"{CALL}/transition-stage")
def transition_stage(**_: str) -> Response:
    """Move a version to a stage; on request, archive the versions that are in that stage."""
    requested = body(Transition)
    if requested.stage not in STAGES:
        raise Invalid(
            "stage", f"{requested.stage!r} is not a stage: expected one of {', '.join(STAGES)}."
        )
    with store().transaction():
        model = find_version(requested)
        for other in store().versions(Model, requested.name):
            is_replaced = other.version != model.version and stage_of(other) == requested.stage
            if requested.archive_existing_versions and is_replaced:
                set_stage(other, "Archived")
        return version_response(set_stage(model, requested.stage))


def set_stage(model: Model, stage: str) -> Model:
    own = model.other.get("mlflow", {}) | {"stage": stage}
    version = VersionId(model.name, str(model.version))
    return change(version, other=model.other | {"mlflow": own})


@model_version_api.delete(f"{CALL}/delete")
def delete_model_version(**_: str) -> Response:
    requested = body(VersionId)
    rest.delete_model_version(find_version(requested))
    return jsonify({})


@model_version_api.get(f"{CALL}/search")
def search_model_versions(**_: str) -> Response:
    requested = query(Search)
    is_selected = parse_filter(requested.filter)
    documents = [serialize_version(model) for model in store().all(Model)]
    found = select_documents(
        documents, searchable_fields, is_selected, request.args.getlist("order_by")
    )
    page, following = select_page(found, requested.max_results, requested.page_token)
    return jsonify(model_versions=page, **following)


def searchable_fields(version: Document) -> Fields:
    attributes = version | {
        "version_number": int(version["version"]),
        "source_path": version["source"],
    }
    tags = {each["key"]: each["value"] for each in version["tags"]}
    return {"attributes": attributes, "tags": tags, "metrics": {}, "params": {}}
