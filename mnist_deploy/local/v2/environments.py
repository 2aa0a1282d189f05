"""Environments: named versions of a base image with a conda file."""

from __future__ import annotations

import dataclasses
from typing import Any

import yaml
from flask import Blueprint, Response, jsonify
from msgspec import Struct

from ..bodies import Document, Labels, body, texts
from ..core.curated import find_registry_environment, is_curated_name, make_curated_environment
from ..core.faults import Conflict, NotFound, NotSupported
from ..core.records import Environment, now
from ..rest import WORKSPACE, store
from ..validation import (
    check_choice,
    check_environment_name,
    check_environment_version,
    check_version_number,
    parse_conda_file,
)
from . import assets
from .resources import parse_asset_id, reject_registry_reference, resource

environment_api = Blueprint("environments", __name__)


class EnvironmentProperties(Struct, rename="camel"):
    """The requested fields of a version; a missing field keeps its value."""

    image: str | None = None
    conda_file: str | None = None
    build: dict[str, Any] | None = None
    inference_config: dict[str, Any] | None = None
    os_type: str | None = None
    description: str | None = None
    tags: Labels | None = None
    properties: Labels | None = None
    is_anonymous: bool = False
    is_archived: bool = False


class EnvironmentRequest(Struct):
    properties: EnvironmentProperties


@environment_api.put(f"{WORKSPACE}/environments/<name>/versions/<version>")
def put_environment_version(name: str, version: str, **_: str) -> Response:
    """Register a version, or change the labels of a registered version.

    The packages and the image of a version never change. For an environment without a version,
    the SDK first sends the newest registered version, and the next one if that is rejected.
    """
    requested = body(EnvironmentRequest).properties
    check_environment_name(name)
    check_environment_version(version)
    for field in ("build", "inference_config"):
        if getattr(requested, field):
            raise NotSupported(f"an environment with {field}: no container image is built here")
    requested.os_type = check_choice("os_type", requested.os_type, ("Linux", "Windows"))
    with store().transaction():
        if version.isdecimal():
            before = str(int(version) - 1)
            has_previous = store().find(Environment, name, before) is not None
            check_version_number("environment", int(version), has_previous)
        if store().find(Environment, name, version) is None:
            store().put(create_environment(name, version, requested))
        environment = store().change(
            Environment, name, version, lambda each: update_environment(each, requested)
        )
    return jsonify(serialize_environment(environment))


def create_environment(name: str, version: str, requested: EnvironmentProperties) -> Environment:
    conda = None if requested.conda_file is None else parse_conda_file(requested.conda_file)
    own = {"conda_file": requested.conda_file} if requested.conda_file else {}
    return Environment(name, version, now(), conda=conda, image=requested.image, other={"v2": own})


def update_environment(environment: Environment, requested: EnvironmentProperties) -> Environment:
    """The environment with the description, tags and properties that are requested.

    Raises
    ------
    Conflict
        If another image or another conda file is requested.
    """
    conda = (
        environment.conda
        if requested.conda_file is None
        else parse_conda_file(requested.conda_file)
    )
    if conda != environment.conda or requested.image not in (None, environment.image):
        raise Conflict(
            "environment",
            f"Version {environment.version} of environment {environment.name} has another image or "
            "conda file. Omit the version to register the next version.",
        )
    return dataclasses.replace(
        environment,
        description=requested.description or environment.description,
        tags=environment.tags if requested.tags is None else texts(requested.tags),
        archived=requested.is_archived,
        other=assets.update_own_fields(
            environment, requested, ("os_type", "properties", "is_anonymous")
        ),
    )


def find_environment(environment_id: str) -> Environment:
    """The registered environment with an id, or one of Azure's curated environments.

    Raises
    ------
    NotFound
        If there is no such environment.
    NotSupported
        If the environment is in another registry than Azure's own.
    """
    curated = find_registry_environment(environment_id)
    if curated is not None:
        return curated
    reject_registry_reference(environment_id)
    name, version = parse_asset_id("environments", environment_id)
    return find_environment_version(name, version)


def find_environment_version(name: str, version: str) -> Environment:
    found = store().find(Environment, name, version)
    if found is not None:
        return found
    if is_curated_name(name):
        return make_curated_environment(name, version)
    raise NotFound("environment", f"{name}:{version}")


def list_environment_versions(name: str) -> list[Environment]:
    """All versions, the newest first; one version for the name of a curated environment."""
    found = store().versions(Environment, name)
    return found or ([make_curated_environment(name)] if is_curated_name(name) else [])


def serialize_environment(environment: Environment) -> Document:
    own = environment.other.get("v2", {})
    properties = {
        "image": environment.image,
        "condaFile": own.get("conda_file") or dump_conda(environment.conda),
        "osType": own.get("os_type", "Linux"),
        "environmentType": "Curated" if is_curated_name(environment.name) else "UserCreated",
        "description": environment.description,
        "tags": environment.tags,
        "properties": texts(own.get("properties") or {}),
        "isAnonymous": own.get("is_anonymous", False),
        "isArchived": environment.archived,
        "provisioningState": "Succeeded",
    }
    parts = ("environments", environment.name, "versions", environment.version)
    return resource(parts, properties, environment.created)


def dump_conda(conda: Document | None) -> str | None:
    return None if conda is None else yaml.safe_dump(conda, sort_keys=False)


assets.add_asset_routes(
    environment_api,
    Environment,
    "environments",
    serialize_environment,
    find_environment_version,
    list_environment_versions,
)
