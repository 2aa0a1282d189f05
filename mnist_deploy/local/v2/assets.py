"""Routes that models, environments and data assets share: versions under a name.

Azure's REST API calls the name with its versions a container.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from flask import Blueprint, Response, jsonify
from msgspec import Struct, to_builtins

from ..bodies import Document, Labels, body, query, texts
from ..core.faults import NotFound
from ..core.records import Data, Environment, Model
from ..rest import WORKSPACE, store
from ..validation import check_choice
from .resources import read_page_token, resource, serialize_page

Asset = TypeVar("Asset", Model, Environment, Data)
Labeled = TypeVar("Labeled", Model, Data)
VIEWS = {"ActiveOnly": (False,), "ArchivedOnly": (True,), "All": (False, True)}


class VersionProperties(Struct, rename="camel", kw_only=True):
    """The requested fields that models and data assets have; a missing field keeps its value."""

    description: str | None = None
    tags: Labels | None = None
    properties: Labels | None = None
    is_anonymous: bool = False
    is_archived: bool = False


def update_labels(found: Labeled, requested: VersionProperties) -> Labeled:
    """The version with the description, tags and properties that are requested."""
    return dataclasses.replace(
        found,
        description=found.description if requested.description is None else requested.description,
        tags=found.tags if requested.tags is None else texts(requested.tags),
        properties=found.properties
        if requested.properties is None
        else texts(requested.properties),
        archived=requested.is_archived,
    )


def update_own_fields(found: Asset, requested: Struct, names: Iterable[str]) -> dict[str, Document]:
    """Return the asset's field `other`, with the requested values of the fields of SDK v2."""
    sent = {name: getattr(requested, name) for name in names}
    own = {name: value for name, value in sent.items() if value is not None}
    return found.other | {"v2": found.other.get("v2", {}) | to_builtins(own)}


class AssetListQuery(Struct, rename={"list_view_type": "listViewType", "top": "$top"}):
    """The query of a list; the newest version is first, since the SDK requests no other order."""

    list_view_type: str = "ActiveOnly"
    top: int | None = None
    stage: str | None = None

    @property
    def archived(self) -> tuple[bool, ...]:
        view = check_choice("listViewType", self.list_view_type, tuple(VIEWS))
        return VIEWS[view or "ActiveOnly"]


class ContainerProperties(Struct, rename="camel"):
    is_archived: bool = False


class ContainerRequest(Struct):
    properties: ContainerProperties


def add_asset_routes(
    api: Blueprint,
    kind: type[Asset],
    plural: str,
    serialize: Callable[[Asset], Document],
    find_version: Callable[[str, str], Asset],
    list_all_versions: Callable[[str], list[Asset]],
) -> None:
    """Add the routes of a kind of asset to `api`.

    Parameters
    ----------
    plural : str
        The segment of the URL.
    serialize : callable
        Returns one version in the schema of the REST API.
    find_version : callable
        Takes name and version, and returns the asset; raises `NotFound`.
    list_all_versions : callable
        Takes a name, and returns all its versions, the newest first.
    """
    add_container_routes(api, kind, plural, list_all_versions)
    add_version_routes(api, kind, plural, serialize, find_version, list_all_versions)


def add_container_routes(
    api: Blueprint,
    kind: type[Asset],
    plural: str,
    list_all_versions: Callable[[str], list[Asset]],
) -> None:
    """Add the routes that list, return and archive names with all their versions."""
    containers = f"{WORKSPACE}/{plural}"

    def find_container(name: str) -> list[Asset]:
        found = list_all_versions(name)
        if not found:
            raise NotFound(kind.__name__.lower(), name)
        return found

    @api.get(containers)
    def list_containers(**_: str) -> Response:
        archived = query(AssetListQuery).archived

        def scan() -> Iterator[tuple[int, list[Asset]]]:
            for position, name in store().names(kind, read_page_token()):
                versions = store().versions(kind, name)
                if versions and is_archived(versions) in archived:
                    yield position, versions

        return jsonify(serialize_page(scan(), lambda each: serialize_container(plural, each)))

    @api.get(f"{containers}/<name>")
    def show_container(name: str, **_: str) -> Response:
        return jsonify(serialize_container(plural, find_container(name)))

    @api.put(f"{containers}/<name>")
    def change_container(name: str, **_: str) -> Response:
        """Archive or restore all versions of a name; other fields of a container cannot change."""
        archived = body(ContainerRequest).properties.is_archived
        for asset in find_container(name):
            store().change(
                kind,
                name,
                asset.version,
                lambda found: dataclasses.replace(found, archived=archived),
            )
        return jsonify(serialize_container(plural, find_container(name)))


def add_version_routes(
    api: Blueprint,
    kind: type[Asset],
    plural: str,
    serialize: Callable[[Asset], Document],
    find_version: Callable[[str, str], Asset],
    list_all_versions: Callable[[str], list[Asset]],
) -> None:
    """Add the routes that list and return single versions."""
    versions = f"{WORKSPACE}/{plural}/<name>/versions"

    @api.get(versions)
    def list_versions(name: str, **_: str) -> Response:
        requested = query(AssetListQuery)
        if requested.top is not None or store().find(kind, name) is None:
            found = [each for each in list_all_versions(name) if is_selected(each, requested)]
            return jsonify(value=[serialize(each) for each in found[: requested.top]])
        scan = store().scan(kind, name=name, before=read_page_token())
        return jsonify(
            serialize_page((each for each in scan if is_selected(each[1], requested)), serialize)
        )

    @api.get(f"{versions}/<version>")
    def show_version(name: str, version: str, **_: str) -> Response:
        return jsonify(serialize(find_version(name, version)))


def is_selected(asset: Model | Environment | Data, requested: AssetListQuery) -> bool:
    stage = asset.other.get("v2", {}).get("stage")
    return asset.archived in requested.archived and requested.stage in (None, stage)


def is_archived(versions: list[Asset]) -> bool:
    """Whether all versions of a container are archived."""
    return all(asset.archived for asset in versions)


def serialize_container(plural: str, versions: list[Asset]) -> Document:
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
