"""Models: named versions, each with a path in the workspace's data store."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

from flask import Blueprint, Response, jsonify
from msgspec import Struct

from ..bodies import Document, body
from ..core.faults import Invalid, NotFound, NotSupported
from ..core.records import Model, now
from ..core.runs import Runs
from ..rest import PROVIDER, WORKSPACE, state, store
from ..validation import check_asset_name, check_version_number
from . import assets
from .datastores import DATASTORE, path_uri
from .resources import resource

URI = re.compile(
    r"(?:azureml://(?:subscriptions/[^/]+/resourcegroups/[^/]+/workspaces/[^/]+/)?"
    rf"|(?:azureml:)?/subscriptions/[^/]+/resourcegroups/[^/]+/providers/{PROVIDER}/[^/]+/)"
    r"datastores/([^/]+)/paths/(.+)",
    re.IGNORECASE,
)
JOB_URI = re.compile(
    r"azureml://(?:subscriptions/[^/]+/resourcegroups/[^/]+/workspaces/[^/]+/)?"
    r"jobs/([^/]+)/outputs/([^/]+)(?:/paths/?(.*))?",
    re.IGNORECASE,
)
ARTIFACTS = ("artifacts", "default")  # names of the output with a job's log and ./outputs
VERSION = re.compile("[1-9][0-9]{0,17}")

model_api = Blueprint("models", __name__)


class Flavor(Struct):
    data: dict[str, Any] = {}


class ModelProperties(assets.VersionProperties, kw_only=True):
    model_uri: str | None = None
    model_type: str | None = None
    flavors: dict[str, Flavor] | None = None
    stage: str | None = None
    default_deployment_template: Any = None
    allowed_deployment_templates: Any = None


class ModelRequest(Struct):
    properties: ModelProperties


@model_api.put(f"{WORKSPACE}/models/<name>/versions/<version>")
def put_model_version(name: str, version: str, **_: str) -> Response:
    """Register a version, or update a registered one, whose path cannot change."""
    requested = body(ModelRequest).properties
    check_asset_name("model", name)
    if not VERSION.fullmatch(version):
        raise Invalid("version", f"{version!r} is not a version of a model: expected 1, 2, 3, …")
    for option in ("default_deployment_template", "allowed_deployment_templates"):
        if getattr(requested, option):
            raise NotSupported(f"a model with {option}")
    number = int(version)
    with store().transaction():
        check_version_number("model", number, store().find(Model, name, number - 1) is not None)
        if store().find(Model, name, number) is None:
            store().put(Model(name, number, (parse_model_uri(requested.model_uri or ""),), now()))
        model = store().change(Model, name, number, lambda found: update_model(found, requested))
    return jsonify(serialize_model(model))


def parse_model_uri(uri: str) -> str:
    """The path of a model's files, as they were uploaded, from the model's URI."""
    if job := JOB_URI.fullmatch(uri):
        return find_job_output(*job.groups(""))
    found = URI.fullmatch(uri)
    if found is None:
        raise NotSupported(f"the path {uri!r}, only files and folders that are uploaded")
    if found[1] != DATASTORE:
        raise NotSupported(f"the data store {found[1]}, only {DATASTORE}")
    return found[2].rstrip("/")


def find_job_output(job: str, output: str, path: str) -> str:
    """The artifacts of a job's output, or of a path below it.

    Raises
    ------
    NotFound
        If there is no such job or output.
    """
    run = state().part(Runs).get(job)
    outputs = dict.fromkeys(ARTIFACTS, run.artifacts) | (run.job.outputs if run.job else {})
    if output not in outputs:
        raise NotFound("output", f"{output} of job {job}")
    return f"{outputs[output]}/{path}".rstrip("/")


def update_model(model: Model, requested: ModelProperties) -> Model:
    """The model with the description, tags and properties that are requested.

    Raises
    ------
    Invalid
        If another path is requested.
    """
    uri = requested.model_uri
    if uri is not None and parse_model_uri(uri) != model.path:
        raise Invalid("path", "Asset paths cannot be updated.")
    return dataclasses.replace(
        assets.update_labels(model, requested),
        other=assets.update_own_fields(
            model, requested, ("model_type", "flavors", "stage", "is_anonymous")
        ),
    )


def serialize_model(model: Model) -> Document:
    own = model.other.get("v2", {})
    properties = {
        "modelUri": path_uri(model.path),
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


def find_model_version(name: str, version: str) -> Model:
    return store().get(Model, name, version)


def list_model_versions(name: str) -> list[Model]:
    return store().versions(Model, name)


assets.add_asset_routes(
    model_api, Model, "models", serialize_model, find_model_version, list_model_versions
)
