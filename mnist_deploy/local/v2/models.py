"""Models: versions under a name, each with a path in the workspace's data store."""

from __future__ import annotations

import dataclasses
import posixpath
import re
from typing import Any

from flask import Blueprint, Response, jsonify
from msgspec import Struct, to_builtins

from ..bodies import Document, Labels, body, texts
from ..core.faults import Invalid, NotSupported
from ..core.records import Model, now
from ..rest import WORKSPACE, store
from . import assets
from .datastores import DATASTORE, path_uri
from .resources import resource

URI = re.compile(
    r"azureml://(?:subscriptions/[^/]+/resourcegroups/[^/]+/workspaces/[^/]+/)?"
    r"datastores/([^/]+)/paths/(.+)",
    re.IGNORECASE,
)
VERSION = re.compile("[1-9][0-9]{0,17}")

model_api = Blueprint("models", __name__)


class Flavor(Struct):
    data: dict[str, Any] = {}


class Properties(Struct, rename="camel"):
    """What is asked for of a version; what is missing stays as it is."""

    model_uri: str | None = None
    model_type: str | None = None
    description: str | None = None
    tags: Labels | None = None
    properties: Labels | None = None
    flavors: dict[str, Flavor] | None = None
    stage: str | None = None
    is_anonymous: bool = False
    is_archived: bool = False


class Asked(Struct):
    properties: Properties


@model_api.put(f"{WORKSPACE}/models/<name>/versions/<version>")
def put_version(name: str, version: str, **_: str) -> Response:
    """Register a version; of one that is there all but its path may change."""
    if not VERSION.fullmatch(version):
        raise Invalid("version", f"{version!r} is no version of a model: expected 1, 2, 3, …")
    asked = body(Asked).properties
    with store().transaction():
        if store().find(Model, name, version) is None:
            store().put(Model(name, int(version), (parse_uri(asked.model_uri or ""),), now()))
        model = store().change(Model, name, int(version), lambda found: changed(found, asked))
    return jsonify(describe(model))


def parse_uri(uri: str) -> str:
    """The path of a model's files, as they were uploaded, from the model's URI."""
    found = URI.fullmatch(uri)
    if found is None:
        raise NotSupported(f"the model path {uri!r}, only files and folders that are uploaded")
    if found[1] != DATASTORE:
        raise NotSupported(f"the data store {found[1]}, only {DATASTORE}")
    return found[2].rstrip("/")


def changed(model: Model, asked: Properties) -> Model:
    if asked.model_uri is not None and parse_uri(asked.model_uri) != path_of(model):
        raise Invalid("path", "Asset paths cannot be updated.")
    kept = ("model_type", "flavors", "stage", "is_anonymous")
    fresh = {each: getattr(asked, each) for each in kept if getattr(asked, each) is not None}
    return dataclasses.replace(
        model,
        description=model.description if asked.description is None else asked.description,
        tags=model.tags if asked.tags is None else texts(asked.tags),
        properties=model.properties if asked.properties is None else texts(asked.properties),
        archived=asked.is_archived,
        other=model.other | {"v2": model.other.get("v2", {}) | to_builtins(fresh)},
    )


def path_of(model: Model) -> str:
    """The one path of a model's files; of several, the folder that all of them lie in."""
    return posixpath.commonpath([path.rstrip("/") for path in model.artifacts] or [""])


def describe(model: Model) -> Document:
    own = model.other.get("v2", {})
    properties = {
        "modelUri": path_uri(path_of(model)),
        "modelType": own.get("model_type", "custom_model"),
        "description": model.description,
        "tags": model.tags,
        "properties": model.properties,
        "flavors": own.get("flavors", {}),
        "stage": own.get("stage"),
        "isAnonymous": own.get("is_anonymous", False),
        "isArchived": model.archived,
        "provisioningState": "Succeeded",
    }
    parts = ("models", model.name, "versions", str(model.version))
    return resource(parts, properties, model.created)


assets.add_routes(model_api, Model, "models", describe)
