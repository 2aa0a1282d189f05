"""Environments: a base image and a conda file under a name and a version."""

from __future__ import annotations

import dataclasses
from typing import Any

import yaml
from flask import Blueprint, Response, jsonify
from msgspec import Struct, to_builtins

from ..bodies import Document, Labels, body, texts
from ..core.faults import Conflict, Invalid, NotSupported
from ..core.records import Environment, now
from ..rest import WORKSPACE, store
from . import assets
from .resources import resource

environment_api = Blueprint("environments", __name__)


class Properties(Struct, rename="camel"):
    """What is asked for of a version; what is missing stays as it is."""

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


class Asked(Struct):
    properties: Properties


@environment_api.put(f"{WORKSPACE}/environments/<name>/versions/<version>")
def put_version(name: str, version: str, **_: str) -> Response:
    """Register a version; what it installs never changes, all else may.

    To an environment without a version the SDK first gives the newest there is, and the next one
    only when that is refused.
    """
    asked = body(Asked).properties
    for field in ("build", "inference_config"):
        if getattr(asked, field):
            raise NotSupported(f"an environment with {field}: no container image is built here")
    with store().transaction():
        if store().find(Environment, name, version) is None:
            store().put(create(name, version, asked))
        environment = store().change(Environment, name, version, lambda each: changed(each, asked))
    return jsonify(describe(environment))


def create(name: str, version: str, asked: Properties) -> Environment:
    conda = parse_conda(asked.conda_file)
    own = {"conda_file": asked.conda_file} if asked.conda_file else {}
    return Environment(name, version, now(), conda=conda, image=asked.image, other={"v2": own})


def parse_conda(text: str | None) -> Document | None:
    if text is None:
        return None
    try:
        content = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise Invalid("conda file", f"The conda file is no YAML: {error}") from error
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise Invalid("conda file", "The conda file holds no mapping of names to values.")
    return content


def changed(environment: Environment, asked: Properties) -> Environment:
    same_conda = asked.conda_file is None or parse_conda(asked.conda_file) == environment.conda
    if not same_conda or asked.image not in (None, environment.image):
        raise Conflict(
            "environment",
            f"Version {environment.version} of environment {environment.name} installs something "
            "else. Leave the version out to register the next one.",
        )
    kept = ("os_type", "properties", "is_anonymous")
    fresh = {each: getattr(asked, each) for each in kept if getattr(asked, each) is not None}
    return dataclasses.replace(
        environment,
        description=asked.description or environment.description,
        tags=environment.tags if asked.tags is None else texts(asked.tags),
        archived=asked.is_archived,
        other=environment.other | {"v2": environment.other.get("v2", {}) | to_builtins(fresh)},
    )


def describe(environment: Environment) -> Document:
    own = environment.other.get("v2", {})
    properties = {
        "image": environment.image,
        "condaFile": own.get("conda_file") or dump_conda(environment.conda),
        "osType": own.get("os_type", "Linux"),
        "environmentType": "UserCreated",
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


assets.add_routes(environment_api, Environment, "environments", describe)
