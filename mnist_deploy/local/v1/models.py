"""Models, and the assets that list the files of a model before it is registered."""

from __future__ import annotations

import dataclasses
import itertools
import re
import uuid
from collections.abc import Collection
from typing import Annotated, Any

from flask import Blueprint, Response, jsonify
from msgspec import UNSET, Meta, Struct, UnsetType, field, to_builtins

from ..bodies import Document, Labels, body, convert, query, texts
from ..core.faults import Invalid, NotFound
from ..core.records import Model, now
from ..rest import WORKSPACE, delete_model_version, next_link, state, store
from ..validation import ASSET_NAME, check_asset_name

MMS = f"/modelmanagement/v1.0{WORKSPACE}"
NAME = ASSET_NAME
VERSION = re.compile("[0-9]{1,18}")
CREATOR = {"userObjectId": "local", "userTenantId": "local", "userName": "local user"}
PAGE = 255  # models in a list's answer, unless it requests fewer

model_api = Blueprint("models", __name__)


class AssetPart(Struct):
    """One of the artifacts of an asset: a file by its id, or a folder by its prefix."""

    id: str = ""
    prefix: str = ""


class AssetRequest(Struct):
    name: str
    artifacts: list[AssetPart]


class ModelDataset(Struct):
    """A data set that a model was registered with."""

    name: str | None = None
    id: str | None = None


class Size(Struct):
    """The resources that a container of the model needs; the SDK reads all fields or none."""

    cpu: float | None = None
    memory: float | None = field(default=None, name="memoryInGB")
    gpu: int | None = None


class ModelRequest(Struct, rename="camel"):
    name: str
    url: str
    description: str | None = None
    kv_tags: Labels | None = None
    properties: Labels | None = None
    mime_type: str | None = None
    unpack: bool | None = None
    framework: str | None = None
    framework_version: str | None = None
    experiment_name: str | None = None
    run_id: str | None = None
    datasets: list[ModelDataset] | None = None
    sample_input_data: str | None = None
    sample_output_data: str | None = None
    resource_requirements: Size | None = None


def find_asset(asset_id: str) -> tuple[str, ...] | None:
    """The artifacts of an asset; the asset of a registered model has the model's id."""
    found = state().assets.get(asset_id)
    if found is None and ":" in asset_id:
        name, _, version = asset_id.partition(":")
        model = store().find(Model, name, version)
        found = None if model is None else model.artifacts
    return found


def serialize_asset(asset_id: str, artifacts: tuple[str, ...]) -> Document:
    return {
        "id": asset_id,
        "name": asset_id,
        "artifacts": [{"prefix": prefix} for prefix in artifacts],
        "kvTags": {},
        "properties": {},
        "createdTime": now(),
    }


@model_api.post(f"{MMS}/assets")
def create_asset(**_: str) -> Response:
    requested = body(AssetRequest)
    artifacts = tuple(part.prefix or part.id for part in requested.artifacts)
    for prefix in artifacts:
        store().check_uploaded(prefix)
        store().touch(prefix)
    asset_id = uuid.uuid4().hex
    state().assets[asset_id] = artifacts
    return jsonify(serialize_asset(asset_id, artifacts))


@model_api.get(f"{MMS}/assets/<asset_id>")
def show_asset(asset_id: str, **_: str) -> Response:
    artifacts = find_asset(asset_id)
    if artifacts is None:
        raise NotFound("asset", asset_id)
    return jsonify(serialize_asset(asset_id, artifacts))


@model_api.post(f"{MMS}/models")
def register_model(**_: str) -> Response:
    requested = body(ModelRequest)
    check_asset_name("model", requested.name)
    asset_id = requested.url.removeprefix("aml://asset/")
    artifacts = find_asset(asset_id)
    if artifacts is None:
        raise Invalid(
            "asset",
            f"{requested.url} is not the URL of an asset: expected the asset that POST /assets "
            f"returned for the files of {requested.name}.",
        )
    kept = ("framework", "frameworkVersion", "experimentName", "runId", "datasets", "mimeType",
            "unpack", "sampleInputData", "sampleOutputData", "resourceRequirements")  # fmt: skip
    sent = to_builtins(requested)
    model = store().add(
        Model(
            requested.name,
            0,
            artifacts,
            now(),
            requested.description or "",
            texts(requested.kv_tags),
            texts(requested.properties),
            other={"v1": {name: sent[name] for name in kept if sent[name] is not None}},
        )
    )
    state().assets.pop(asset_id, None)
    return jsonify(serialize_model(model))


def serialize_model(model: Model) -> Document:
    return {
        "mimeType": "application/octet-stream",
        "unpack": False,
        "datasets": [],
        **({"description": model.description} if model.description else {}),
        **model.other.get("v1", {}),
        "id": model.id,
        "name": model.name,
        "version": model.version,
        "url": f"aml://asset/{model.id}",
        "kvTags": model.tags,
        "properties": model.properties,
        "createdTime": model.created,
        "createdBy": CREATOR,
    }


def serialize_model_details(model: Document) -> Document:
    """A model in the response for a service or an image, where the SDK requires every field."""
    texts = ("description", "framework", "frameworkVersion", "experimentName", "runId")
    return dict.fromkeys(texts, "") | model | {"tags": model["kvTags"]}


def find_model(model_id: str) -> Model:
    """The model with the id ``name:version``; the newest version for ``name``."""
    name, _, version = model_id.partition(":")
    if version == "" or VERSION.fullmatch(version):
        found = store().find(Model, name, int(version) if version else None)
        if found is not None:
            return found
    raise NotFound("model", model_id)


@model_api.get(f"{MMS}/models/<path:model_id>")
def show_model(model_id: str, **_: str) -> Response:
    """Return a model. LocalWebservice also sends local paths, to check that none is a model id."""
    return jsonify(serialize_model(find_model(model_id)))


class ModelQuery(Struct, rename="camel"):
    name: str | None = None
    framework: str | None = None
    run_id: str | None = None
    dataset_id: str | None = None
    tags: str | None = None
    properties: str | None = None
    latest_version_only: bool = False
    count: Annotated[int, Meta(ge=1, le=10**6)] | None = None
    skip_token: Annotated[int, Meta(ge=0, le=10**18)] | None = field(
        default=None, name="$skipToken"
    )


@model_api.get(f"{MMS}/models")
def list_models(**_: str) -> Response:
    requested = query(ModelQuery)
    scan = store().scan(
        Model,
        name=requested.name,
        before=requested.skip_token,
        latest=requested.latest_version_only,
    )
    found = (each for each in scan if matches_model_query(each[1], requested))
    size = requested.count or PAGE
    page = list(itertools.islice(found, size + 1))
    answer: Document = {"value": [serialize_model(model) for _, model in page[:size]]}
    if len(page) > size:
        answer["nextLink"] = next_link("$skipToken", page[size - 1][0])
    return jsonify(answer)


def matches_model_query(model: Model, requested: ModelQuery) -> bool:
    own = model.other.get("v1", {})
    return (
        requested.framework in (None, own.get("framework"))
        and requested.run_id in (None, own.get("runId"))
        and requested.dataset_id in (None, *(each.get("id") for each in own.get("datasets", [])))
        and has_labels(model.tags, requested.tags)
        and has_labels(model.properties, requested.properties)
    )


def has_labels(labels: dict[str, str], requested: str | None) -> bool:
    """Whether `labels` has all of ``key,key=value,…``."""
    for entry in filter(None, (requested or "").split(",")):
        key, equals, value = entry.partition("=")
        if key not in labels or (equals and labels[key] != value):
            return False
    return True


class PatchOperation(Struct):
    """One operation of a JSON patch."""

    op: str
    path: str
    value: Any = None


CHANGEABLE = ("kvTags", "properties", "description", "sampleInputData", "sampleOutputData",
              "resourceRequirements")  # fmt: skip


class ChangeableModel(Struct, rename="camel"):
    """The fields of a model that can be changed."""

    kv_tags: Labels | None = None
    properties: Labels | None = None
    description: str | None = None
    sample_input_data: str | UnsetType | None = UNSET
    sample_output_data: str | UnsetType | None = UNSET
    resource_requirements: Size | UnsetType | None = UNSET


@model_api.patch(f"{MMS}/models/<model_id>")
def update_model(model_id: str, **_: str) -> Response:
    changes, known = body(list[PatchOperation]), find_model(model_id)

    def change(model: Model) -> Model:
        changed = convert(apply_patch(serialize_model(model), changes, CHANGEABLE), ChangeableModel)
        properties = texts(changed.properties)
        if properties | model.properties != properties:
            raise Invalid(
                "patch",
                "Properties can be added, but not changed or removed. Use a tag for a value that "
                "changes.",
            )
        own = {
            name: value
            for name, value in to_builtins(changed).items()
            if name not in ("kvTags", "properties", "description")
        }
        return dataclasses.replace(
            model,
            tags=texts(changed.kv_tags),
            properties=properties,
            description=changed.description or "",
            other=model.other | {"v1": model.other.get("v1", {}) | own},
        )

    return jsonify(serialize_model(store().change(Model, known.name, known.version, change)))


def apply_patch(
    document: Document, changes: list[PatchOperation], allowed: Collection[str]
) -> Document:
    """`document` after the operations of a JSON patch that add or replace a field, or an entry."""
    for change in changes:
        name, _, entry = change.path.strip("/").partition("/")
        if change.op.lower() not in ("add", "replace") or name not in allowed:
            raise Invalid(
                "patch",
                f"{change.op} {change.path} is not possible: expected add or replace of one of "
                f"{', '.join(sorted(allowed))}.",
            )
        value = change.value
        if entry:
            entries = document.get(name) or {}
            if not isinstance(entries, dict):
                raise Invalid(
                    "patch",
                    f"{change.path} is not possible: {name} is not a set of names and values.",
                )
            value = {**entries, entry: value}
        document = document | {name: value}
    return document


@model_api.delete(f"{MMS}/models/<model_id>")
def delete_model(model_id: str, **_: str) -> Response:
    delete_model_version(find_model(model_id))
    return Response(status=200)
