"""Registered environments."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response, jsonify
from msgspec import Struct

from ..bodies import Document, Labels, body, convert, texts
from ..core.curated import is_curated_name, make_curated_environment
from ..core.faults import NotFound
from ..core.records import Environment, now
from ..rest import WORKSPACE, store
from ..validation import (
    check_conda,
    check_environment_name,
    check_environment_version,
    check_variables,
)

ENVIRONMENTS = f"/environment/v1.0{WORKSPACE}/environments"
# Sent to the SDK for a package whose environment has no version.
UNREGISTERED = {"name": "unregistered-environment", "version": "0"}

environment_api = Blueprint("environments", __name__)


class PythonSection(Struct, rename="camel"):
    conda_dependencies: dict[str, Any] | None = None
    user_managed_dependencies: bool | None = None


class DockerSection(Struct, rename="camel"):
    base_image: str | None = None
    base_dockerfile: str | None = None


class EnvironmentDefinition(Struct, rename="camel"):
    """The interpreted fields of an environment; other fields are stored unchanged."""

    python: PythonSection | None = None
    docker: DockerSection | None = None
    environment_variables: Labels | None = None


@environment_api.put(f"{ENVIRONMENTS}/<name>")
@environment_api.put(f"{ENVIRONMENTS}/<name>/versions/<version>")
def register_environment(name: str, version: str | None = None, **_: str) -> Response:
    """Register an environment, unless its newest version (or the named one) is equal to it."""
    check_environment_name(name)
    if version is not None:
        check_environment_version(version)
    # The SDK sends some names capitalized, but reads all of them in camel case.
    definition = {key[:1].lower() + key[1:]: value for key, value in body(Document).items()}
    for field in ("name", "version"):
        definition.pop(field, None)
    with store().transaction():
        found = store().find(Environment, name, version)
        if found is None or get_definition(found) != definition:
            record = make_environment(name, version or "", definition)
            found = store().put(record) if version else store().add(record)
    return jsonify(serialize_environment(found))


def make_environment(name: str, version: str, definition: Document) -> Environment:
    known = convert(definition, EnvironmentDefinition)
    check_definition(known)
    return Environment(
        name,
        version,
        now(),
        conda=(known.python or PythonSection()).conda_dependencies,
        image=(known.docker or DockerSection()).base_image,
        variables=texts(known.environment_variables),
        other={"v1": definition},
    )


def check_definition(definition: EnvironmentDefinition) -> None:
    """Reject variables that a process cannot have, and requirements that pip cannot parse.

    Raises
    ------
    Invalid
        With the name of the variable, or the requirement.
    """
    check_variables(texts(definition.environment_variables))
    conda = (definition.python or PythonSection()).conda_dependencies
    if conda is not None:
        check_conda(conda)


def get_definition(environment: Environment) -> Document:
    """The definition in SDK v1's schema, whichever SDK registered the environment."""
    return environment.other.get("v1") or {
        "python": {"userManagedDependencies": False, "condaDependencies": environment.conda},
        "docker": {"baseImage": environment.image},
        "environmentVariables": environment.variables,
    }


def serialize_environment(environment: Environment) -> Document:
    return get_definition(environment) | {"name": environment.name, "version": environment.version}


@environment_api.get(f"{ENVIRONMENTS}/<name>")
@environment_api.get(f"{ENVIRONMENTS}/<name>/versions/<version>")
def show_environment(name: str, version: str | None = None, **_: str) -> Response:
    found = store().find(Environment, name, version)
    if found is None and is_curated_name(name):
        found = make_curated_environment(name, version)
    if {"name": name, "version": version} == UNREGISTERED:
        found = Environment(name, UNREGISTERED["version"], created="")
    if found is None:
        raise NotFound("environment", name if version is None else f"{name}:{version}")
    return jsonify(serialize_environment(found))


@environment_api.get(f"{ENVIRONMENTS}/<name>/versions/<version>/image")
def show_image(name: str, version: str, **_: str) -> Response:
    """Respond that no image exists: `LocalWebservice` builds one, without a registry."""
    show_environment(name, version)
    registry = dict.fromkeys(("address", "username", "password"))
    return jsonify(
        dockerImage={"name": f"{name}:{version}", "registry": registry, "dockerfile": None},
        imageExistsInRegistry=False,
        pythonEnvironment=None,
    )


@environment_api.get(f"{ENVIRONMENTS}/")
def list_environments(**_: str) -> Response:
    newest = store().scan(Environment, latest=True)
    return jsonify(value=[serialize_environment(environment) for _, environment in newest])
