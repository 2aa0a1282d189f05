"""Models and the assets that hold their files."""

from __future__ import annotations

import datetime as dt
import re
import uuid
from typing import Any

from flask import Blueprint, Response, current_app, jsonify, request, url_for

from ..core.store import Document, asset_of, asset_prefixes
from .artifacts import WORKSPACE, store
from .refusal import Refusal

MMS = f"/modelmanagement/v1.0{WORKSPACE}"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,254}")
CREATOR = {"userObjectId": "local", "userTenantId": "local", "userName": "local user"}

model_api = Blueprint("models", __name__)


def now() -> str:
    return dt.datetime.now(dt.timezone.utc).isoformat()


@model_api.post(f"{MMS}/assets")
def create_asset(**_: str) -> Response:
    asked = request.get_json()
    asset = {
        "id": uuid.uuid4().hex,
        "name": asked["name"],
        "artifacts": asked["artifacts"],
        "kvTags": {},
        "properties": {},
        "createdTime": now(),
    }
    for prefix in asset_prefixes(asset):
        files = [file for _, file in store().artifacts(prefix)]
        if not files or not all(file.exists() for file in files):
            raise Refusal(400, "ArtifactNotFound", f"{prefix} of {asked['name']} is not uploaded.")
    store().add_asset(asset)
    return jsonify(asset)


@model_api.get(f"{MMS}/assets/<asset_id>")
def show_asset(asset_id: str, **_: str) -> Response:
    asset = store().asset(asset_id)
    if asset is None:
        raise Refusal(404, "AssetNotFound", f"There is no asset {asset_id}.")
    return jsonify(asset)


@model_api.post(f"{MMS}/models")
def register_model(**_: str) -> Response:
    asked = request.get_json()
    name = asked.get("name") or ""
    if not NAME.fullmatch(name):
        raise Refusal(
            400,
            "InvalidModelName",
            f"{name!r} is no name for a model: letters, digits, '.', '_' and '-', at most 255, "
            "beginning with a letter or digit.",
        )
    if store().asset(asset_of(asked)) is None:
        raise Refusal(400, "AssetNotFound", f"The files of {name} were not registered first.")
    kept = ("name", "url", "description", "framework", "frameworkVersion", "experimentName",
            "runId", "sampleInputData", "sampleOutputData", "resourceRequirements")  # fmt: skip
    model = {field: asked[field] for field in kept if asked.get(field) is not None} | {
        "mimeType": asked.get("mimeType") or "application/octet-stream",
        "unpack": bool(asked.get("unpack")),
        "kvTags": asked.get("kvTags") or {},
        "properties": asked.get("properties") or {},
        "datasets": asked.get("datasets") or [],
        "createdTime": now(),
        "createdBy": CREATOR,
    }
    version = store().add("model", name, model)
    return jsonify(answer(name, version, model))


def answer(name: str, version: int | str, model: Document) -> Document:
    return model | {"id": f"{name}:{version}", "version": version}


def details(model: Document) -> Document:
    """A model in a service or an image, where the SDK has a parser that misses every field."""
    texts = ("description", "framework", "frameworkVersion", "experimentName", "runId")
    return dict.fromkeys(texts, "") | model | {"tags": model["kvTags"]}


def find_model(model_id: str) -> tuple[str, int | str, Document]:
    """(name, version, document) of the model ``name:version`` (or ``name``: its newest)."""
    name, _, version = model_id.partition(":")
    if version == "" or version.isdigit():
        found = store().get("model", name, int(version) if version else None)
        if found is not None:
            return name, *found
    raise Refusal(
        404, "ModelNotFound", f"No model {model_id} is registered in this local workspace."
    )


@model_api.get(f"{MMS}/models/<model_id>")
def show_model(model_id: str, **_: str) -> Response:
    return jsonify(answer(*find_model(model_id)))


@model_api.get(f"{MMS}/models")
def list_models(**_: str) -> Response:
    query = request.args
    found = [entry for entry in store().all("model") if matches(entry[0], entry[2], query)]
    if query.get("latestVersionOnly", "").lower() == "true":
        newest: dict[str, tuple] = {}
        for entry in found:
            newest.setdefault(entry[0], entry)
        found = list(newest.values())
    start, count = int(query.get("$skipToken", 0)), int(query.get("count") or 255)
    page: dict[str, Any] = {"value": [answer(*entry) for entry in found[start : start + count]]}
    if start + count < len(found):
        following = query.to_dict() | {"$skipToken": str(start + count)}
        page["nextLink"] = url_for(
            request.endpoint or "", _external=True, **(request.view_args or {}), **following
        )
    return jsonify(page)


def matches(name: str, model: Document, query: Any) -> bool:
    return (
        query.get("name") in (None, name)
        and query.get("framework") in (None, model.get("framework"))
        and query.get("runId") in (None, model.get("runId"))
        and has_all(model["kvTags"], query.get("tags"))
        and has_all(model["properties"], query.get("properties"))
    )


def has_all(labels: dict[str, str], wanted: str | None) -> bool:
    """Whether `labels` has all of ``key,key=value,…``."""
    for entry in filter(None, (wanted or "").split(",")):
        key, equals, value = entry.partition("=")
        if key not in labels or (equals and labels[key] != value):
            return False
    return True


@model_api.patch(f"{MMS}/models/<model_id>")
def update_model(model_id: str, **_: str) -> Response:
    name, version, model = find_model(model_id)
    for change in request.get_json(force=True):
        apply_patch(model, change, {"kvTags", "properties", "description", "sampleInputData",
                                    "sampleOutputData", "resourceRequirements"})  # fmt: skip
    store().put("model", name, version, model)
    return jsonify(answer(name, version, model))


def apply_patch(document: Document, change: Document, allowed: set[str]) -> None:
    """Apply one JSON patch operation (add, replace) to a field, or to an entry of one."""
    field, _, entry = change["path"].strip("/").partition("/")
    if change["op"].lower() not in ("add", "replace") or field not in allowed:
        raise Refusal(400, "InvalidPatch", f"{change['op']} {change['path']} cannot be changed.")
    if entry:
        document[field] = {**(document.get(field) or {}), entry: change["value"]}
    else:
        document[field] = change["value"]


@model_api.delete(f"{MMS}/models/<model_id>")
def delete_model(model_id: str, **_: str) -> Response:
    name, version, model = find_model(model_id)
    users = current_app.extensions["services"].using(f"{name}:{version}")
    if users:
        raise Refusal(
            412, "DeletionRequired", f"{name}:{version} is in use: first delete {', '.join(users)}."
        )
    store().delete("model", name, version)
    store().remove_asset(asset_of(model))
    return Response(status=200)
