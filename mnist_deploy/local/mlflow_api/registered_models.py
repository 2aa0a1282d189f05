"""Registered models of MLflow: names with a description, tags and model versions.

Azure's model registry supports neither renaming nor deletion of a registered model:
https://learn.microsoft.com/azure/machine-learning/how-to-manage-models-mlflow (Limitations)
"""

from __future__ import annotations

import dataclasses

from flask import Blueprint, Response, jsonify, request
from msgspec import Struct

from ..bodies import Document, body, query
from ..core.faults import Conflict, NotFound, NotSupported
from ..core.records import Model, RegisteredModel, now
from ..rest import store
from ..validation import check_asset_name
from .fields import API, Entry, PageSize, entries, milliseconds, select_page
from .model_versions import latest_versions, serialize_version, stage_of
from .search import Fields, parse_filter, select_documents

CALL = f"{API}/registered-models"
IS_PROMPT = "mlflow.prompt.is_prompt"  # MLflow 3 adds "!= 'true'" of this tag to each filter

registered_model_api = Blueprint("registered_models", __name__)


class Name(Struct):
    name: str


class ModelRequest(Name):
    description: str = ""
    tags: list[Entry] = []


class Update(Name):
    description: str = ""


class TagRequest(Entry, kw_only=True):
    name: str


class TagKey(Name):
    key: str


class Stages(Name):
    stages: list[str] = []


class Search(Struct):
    filter: str = ""
    max_results: PageSize = 100
    page_token: str | None = None


def find_registered_model(name: str) -> RegisteredModel:
    """Return description and tags of a name; empty for a model registered by an SDK of Azure."""
    found = store().find(RegisteredModel, name)
    if found is not None:
        return found
    versions = store().versions(Model, name)
    if not versions:
        raise NotFound("registered model", name)
    return RegisteredModel(name, min(version.created for version in versions))


def serialize_registered_model(model: RegisteredModel) -> Document:
    versions = store().versions(Model, model.name)
    changed = max([model.created, *(version.created for version in versions)])
    return {
        "name": model.name,
        "creation_timestamp": milliseconds(model.created),
        "last_updated_timestamp": milliseconds(changed),
        "description": model.description,
        "tags": entries(model.tags),
        "latest_versions": [serialize_version(each) for each in latest_versions(model.name)],
    }


@registered_model_api.post(f"{CALL}/create")
def create_registered_model(**_: str) -> Response:
    requested = body(ModelRequest)
    check_asset_name("model", requested.name)
    tags = {tag.key: tag.value for tag in requested.tags}
    model = RegisteredModel(requested.name, now(), description=requested.description, tags=tags)
    with store().transaction():
        known = store().find(RegisteredModel, model.name) or store().find(Model, model.name)
        if known is not None:
            raise Conflict("registered model", f"Registered model {model.name} exists already.")
        store().put(model)
    return jsonify(registered_model=serialize_registered_model(model))


@registered_model_api.get(f"{CALL}/get")
def get_registered_model(**_: str) -> Response:
    model = find_registered_model(query(Name).name)
    return jsonify(registered_model=serialize_registered_model(model))


@registered_model_api.patch(f"{CALL}/update")
def update_registered_model(**_: str) -> Response:
    requested = body(Update)
    return change(requested.name, description=requested.description)


@registered_model_api.post(f"{CALL}/set-tag")
def set_registered_model_tag(**_: str) -> Response:
    requested = body(TagRequest)
    with store().transaction():
        tags = find_registered_model(requested.name).tags
        return change(requested.name, tags=tags | {requested.key: requested.value})


@registered_model_api.delete(f"{CALL}/delete-tag")
def delete_registered_model_tag(**_: str) -> Response:
    requested = body(TagKey)
    with store().transaction():
        tags = find_registered_model(requested.name).tags
        kept = {key: value for key, value in tags.items() if key != requested.key}
        return change(requested.name, tags=kept)


def change(name: str, **fields: object) -> Response:
    with store().transaction():
        model = find_registered_model(name)
        if store().find(RegisteredModel, name) is None:
            store().put(model)
        model = store().change(
            RegisteredModel,
            name,
            model.version,
            lambda found: dataclasses.replace(found, **fields),  # type: ignore[arg-type]
        )
    return jsonify(registered_model=serialize_registered_model(model))


@registered_model_api.post(f"{CALL}/rename")
def rename_registered_model(**_: str) -> Response:
    raise NotSupported("renaming a registered model, as on Azure")


@registered_model_api.delete(f"{CALL}/delete")
def delete_registered_model(**_: str) -> Response:
    raise NotSupported(
        "deleting a registered model, as on Azure (call delete_model_version for each version)"
    )


@registered_model_api.post(f"{CALL}/get-latest-versions")
def get_latest_versions(**_: str) -> Response:
    """Return the newest version of each requested stage; default: of each stage in use."""
    requested = body(Stages)
    find_registered_model(requested.name)
    found = latest_versions(requested.name)
    if requested.stages:
        found = [version for version in found if stage_of(version) in requested.stages]
    return jsonify(model_versions=[serialize_version(version) for version in found])


@registered_model_api.get(f"{CALL}/search")
def search_registered_models(**_: str) -> Response:
    requested = query(Search)
    is_selected = parse_filter(requested.filter)
    names = {each.name for each in store().all(RegisteredModel)}
    names |= {each.name for each in store().all(Model)}
    documents = [serialize_registered_model(find_registered_model(name)) for name in sorted(names)]
    found = select_documents(
        documents, searchable_fields, is_selected, request.args.getlist("order_by")
    )
    page, following = select_page(found, requested.max_results, requested.page_token)
    return jsonify(registered_models=page, **following)


def searchable_fields(model: Document) -> Fields:
    tags = {IS_PROMPT: "false"} | {each["key"]: each["value"] for each in model["tags"]}
    return {"attributes": model, "tags": tags, "metrics": {}, "params": {}}
