"""Registered environments."""

from __future__ import annotations

from flask import Blueprint, Response, jsonify, request

from ..core.store import Document
from .artifacts import WORKSPACE, store
from .models import NAME
from .refusal import Refusal

ENVIRONMENTS = f"/environment/v1.0{WORKSPACE}/environments"

environment_api = Blueprint("environments", __name__)


@environment_api.put(f"{ENVIRONMENTS}/<name>")
@environment_api.put(f"{ENVIRONMENTS}/<name>/versions/<version>")
def register_environment(name: str, version: str | None = None, **_: str) -> Response:
    """A definition equal to the newest version stays that version, as on Azure."""
    if not NAME.fullmatch(name):
        raise Refusal(400, "InvalidEnvironmentName", f"{name!r} is no name for an environment.")
    # The SDK sends some names capitalised, but reads all of them in camel case.
    asked = {key[:1].lower() + key[1:]: value for key, value in request.get_json().items()}
    asked.pop("name", None)
    newest = store().get("environment", name)
    if version is not None:
        store().put("environment", name, as_version(version), asked)
    elif newest is not None and newest[1] == asked:
        version = str(newest[0])
    else:
        version = str(store().add("environment", name, asked))
    return jsonify(answer(name, version, asked))


def as_version(version: str) -> int | str:
    """Versions that were counted are numbers, versions that somebody chose may be any text."""
    return int(version) if version.isdigit() else version


def answer(name: str, version: int | str, definition: Document) -> Document:
    return {"name": name, "version": str(version), **definition}


@environment_api.get(f"{ENVIRONMENTS}/<name>")
@environment_api.get(f"{ENVIRONMENTS}/<name>/versions/<version>")
def show_environment(name: str, version: str | None = None, **_: str) -> Response:
    found = store().get("environment", name, version and as_version(version))
    if found is None:
        which = f"version {version} of environment {name}" if version else f"environment {name}"
        raise Refusal(404, "EnvironmentNotFound", f"There is no {which} in this local workspace.")
    return jsonify(answer(name, *found))


@environment_api.get(f"{ENVIRONMENTS}/")
def list_environments(**_: str) -> Response:
    newest: dict[str, Document] = {}
    for name, version, definition in store().all("environment"):
        newest.setdefault(name, answer(name, version, definition))
    return jsonify(value=list(newest.values()))
