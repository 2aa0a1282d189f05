"""What models, environments and codes have in common: versions under a name, called container."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TypeVar

from flask import Blueprint, Response, jsonify
from msgspec import Struct

from ..bodies import Document, body, query
from ..core.faults import NotFound
from ..core.records import Environment, Model
from ..rest import WORKSPACE, store
from .resources import page, resource

Asset = TypeVar("Asset", Model, Environment)
VIEWS = {"ActiveOnly": (False,), "ArchivedOnly": (True,), "All": (False, True)}


class View(Struct, rename={"list_view_type": "listViewType", "top": "$top"}):
    """What a list is asked for. The newest comes first, which is the only order asked for."""

    list_view_type: str = "ActiveOnly"
    top: int | None = None


class ContainerProperties(Struct, rename="camel"):
    is_archived: bool = False


class Container(Struct):
    properties: ContainerProperties


def versions_of(kind: type[Asset], name: str) -> list[Asset]:
    """Every version of a name, the newest first.

    Raises
    ------
    NotFound
        If there is none.
    """
    found = [asset for asset in store().all(kind) if asset.name == name]
    if not found:
        raise NotFound(kind.__name__.lower(), name)
    return found


def add_routes(
    api: Blueprint, kind: type[Asset], plural: str, describe: Callable[[Asset], Document]
) -> None:
    """Have `api` answer what is asked of all assets of a kind alike; `describe` tells one."""
    containers = f"{WORKSPACE}/{plural}"

    @api.get(containers)
    def list_all(**_: str) -> Response:
        return list_containers(kind, plural)

    @api.get(f"{containers}/<name>")
    def show_name(name: str, **_: str) -> Response:
        return jsonify(describe_container(plural, versions_of(kind, name)))

    @api.put(f"{containers}/<name>")
    def change_name(name: str, **_: str) -> Response:
        return change_container(kind, plural, name)

    @api.get(f"{containers}/<name>/versions")
    def list_of_name(name: str, **_: str) -> Response:
        return list_versions(kind, name, describe)

    @api.get(f"{containers}/<name>/versions/<version>")
    def show_version(name: str, version: str, **_: str) -> Response:
        return jsonify(describe(store().get(kind, name, version)))


def list_versions(kind: type[Asset], name: str, describe: Callable[[Asset], Document]) -> Response:
    view = query(View)
    wanted = VIEWS.get(view.list_view_type, VIEWS["All"])
    found = [asset for asset in store().all(kind) if asset.name == name]
    found = [asset for asset in found if asset.archived in wanted][: view.top]
    return jsonify(page(found, describe))


def list_containers(kind: type[Asset], plural: str) -> Response:
    wanted = VIEWS.get(query(View).list_view_type, VIEWS["All"])
    by_name: dict[str, list[Asset]] = {}
    for asset in store().all(kind):
        by_name.setdefault(asset.name, []).append(asset)
    found = [each for each in by_name.values() if is_archived(each) in wanted]
    return jsonify(page(found, lambda versions: describe_container(plural, versions)))


def is_archived(versions: list[Asset]) -> bool:
    """A container is archived when all in it is."""
    return all(asset.archived for asset in versions)


def describe_container(plural: str, versions: list[Asset]) -> Document:
    newest = versions[0]
    numbers = [int(each.version) for each in versions if str(each.version).isdecimal()]
    properties = {
        "description": newest.description,
        "tags": newest.tags,
        "properties": {},
        "isArchived": is_archived(versions),
        "latestVersion": str(newest.version),
        "nextVersion": str(max(numbers, default=0) + 1),
        "provisioningState": "Succeeded",
    }
    return resource((plural, newest.name), properties, versions[-1].created, newest.created)


def change_container(kind: type[Asset], plural: str, name: str) -> Response:
    """Archive all versions of a name, or restore them: nothing else of a container can change."""
    archived = body(Container).properties.is_archived
    for asset in versions_of(kind, name):
        store().change(
            kind, name, asset.version, lambda found: dataclasses.replace(found, archived=archived)
        )
    return jsonify(describe_container(plural, versions_of(kind, name)))
