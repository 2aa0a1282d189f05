"""Data assets: named versions of files and folders in the data store."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

from flask import Blueprint, Response, jsonify
from msgspec import Struct

from ..bodies import Document, body
from ..core.artifacts import DATASTORE as FOLDER
from ..core.faults import Invalid, NotSupported
from ..core.records import Data, now
from ..rest import WORKSPACE, store
from ..validation import check_asset_name
from . import assets
from .datastores import path_uri
from .models import parse_model_uri
from .resources import resource
from .unsupported import DATA_COLLECTOR

DATA = f"{WORKSPACE}/data"

data_api = Blueprint("data", __name__)


class DataProperties(assets.VersionProperties, kw_only=True):
    data_uri: str
    data_type: Literal["uri_file", "uri_folder", "mltable"] = "uri_folder"
    auto_delete_setting: Any = None


class DataRequest(Struct):
    properties: DataProperties


@data_api.put(f"{DATA}/<name>/versions/<version>")
def put_data_version(name: str, version: str, **_: str) -> Response:
    """Register a version, or update a registered one, whose path cannot change."""
    requested = body(DataRequest).properties
    if DATA_COLLECTOR.decode() in requested.data_uri:
        raise NotSupported("a deployment with data_collector")
    if requested.auto_delete_setting:
        raise NotSupported("a data asset with auto_delete_setting: data is not deleted by its age")
    check_asset_name("data", name)
    path = find_data_path(requested.data_uri)
    with store().transaction():
        before = store().find(Data, name, version)
        if before is None:
            before = store().put(Data(name, version, now(), requested.data_type, path))
        if before.path != path:
            raise Invalid("path", "Asset paths cannot be updated.")
        data = store().change(
            Data,
            name,
            version,
            lambda found: dataclasses.replace(
                assets.update_labels(found, requested),
                other={"v2": {"is_anonymous": requested.is_anonymous}},
            ),
        )
    return jsonify(serialize_data(data))


def find_data_path(uri: str) -> str:
    """The path of the artifacts that a URI of the data store names.

    A path below SDK v1's data store is found as well.

    Raises
    ------
    Invalid
        If the data store has no file at the URI.
    """
    path = parse_model_uri(uri)
    found = [each for each in (path, f"{FOLDER}/{path}") if store().artifacts(each)]
    if not found:
        raise Invalid("data", f"There is no file at {uri} in the data store: upload it first.")
    return found[0]


def serialize_data(data: Data) -> Document:
    properties = {
        "dataUri": path_uri(data.path),
        "dataType": data.kind,
        "description": data.description,
        "tags": data.tags,
        "properties": data.properties,
        "isAnonymous": data.other.get("v2", {}).get("is_anonymous", False),
        "isArchived": data.archived,
        "provisioningState": "Succeeded",
    }
    return resource(("data", data.name, "versions", data.version), properties, data.created)


def find_data_version(name: str, version: str) -> Data:
    return store().get(Data, name, version)


def list_data_versions(name: str) -> list[Data]:
    return store().versions(Data, name)


assets.add_asset_routes(
    data_api, Data, "data", serialize_data, find_data_version, list_data_versions
)
