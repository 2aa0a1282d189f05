"""Registered environments."""

from __future__ import annotations

import re
from typing import Any

from flask import Blueprint, Response, jsonify
from msgspec import Struct

from ..bodies import Document, Labels, body, convert, texts
from ..core.faults import Invalid
from ..core.records import Environment, now
from ..rest import WORKSPACE, store
from .models import NAME

ENVIRONMENTS = f"/environment/v1.0{WORKSPACE}/environments"
VERSION = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,254}")

environment_api = Blueprint("environments", __name__)


class Python(Struct, rename="camel"):
    conda_dependencies: dict[str, Any] | None = None
    user_managed_dependencies: bool | None = None


class Docker(Struct, rename="camel"):
    base_image: str | None = None
    base_dockerfile: str | None = None


class Definition(Struct, rename="camel"):
    """What of an environment is understood; the rest is kept as it comes."""

    python: Python | None = None
    docker: Docker | None = None
    environment_variables: Labels | None = None


@environment_api.put(f"{ENVIRONMENTS}/<name>")
@environment_api.put(f"{ENVIRONMENTS}/<name>/versions/<version>")
def register_environment(name: str, version: str | None = None, **_: str) -> Response:
    """A definition equal to the newest version, or to that of its number, stays that version."""
    if not NAME.fullmatch(name):
        raise Invalid("environment name", f"{name!r} is no name for an environment.")
    if version is not None and not VERSION.fullmatch(version):
        raise Invalid("environment version", f"{version!r} is no version of an environment.")
    # The SDK sends some names capitalised, but reads all of them in camel case.
    definition = {key[:1].lower() + key[1:]: value for key, value in body(Document).items()}
    for given in ("name", "version"):
        definition.pop(given, None)
    with store().transaction():
        found = store().find(Environment, name, version)
        if found is None or define(found) != definition:
            record = build_record(name, version or "", definition)
            found = store().put(record) if version else store().add(record)
    return jsonify(answer(found))


def build_record(name: str, version: str, definition: Document) -> Environment:
    known = convert(definition, Definition)
    return Environment(
        name,
        version,
        now(),
        conda=(known.python or Python()).conda_dependencies,
        image=(known.docker or Docker()).base_image,
        variables=texts(known.environment_variables),
        other={"v1": definition},
    )


def define(environment: Environment) -> Document:
    """Its definition in the words of SDK v1, whoever registered it."""
    return environment.other.get("v1") or {
        "python": {"userManagedDependencies": False, "condaDependencies": environment.conda},
        "docker": {"baseImage": environment.image},
        "environmentVariables": environment.variables,
    }


def answer(environment: Environment) -> Document:
    return define(environment) | {"name": environment.name, "version": environment.version}


@environment_api.get(f"{ENVIRONMENTS}/<name>")
@environment_api.get(f"{ENVIRONMENTS}/<name>/versions/<version>")
def show_environment(name: str, version: str | None = None, **_: str) -> Response:
    return jsonify(answer(store().get(Environment, name, version)))


@environment_api.get(f"{ENVIRONMENTS}/")
def list_environments(**_: str) -> Response:
    newest: dict[str, Document] = {}
    for environment in store().all(Environment):
        newest.setdefault(environment.name, answer(environment))
    return jsonify(value=list(newest.values()))
