"""Data sets: stored definitions, which Microsoft's data engine creates and evaluates."""

from __future__ import annotations

import dataclasses
import json
import re
import uuid
from typing import Any

import yaml
from flask import Blueprint, Response, jsonify
from msgspec import Struct

from ..bodies import Document, body, query
from ..core.faults import Conflict, Invalid, NotFound, NotSupported
from ..core.records import Dataset, SavedDataset, now
from ..core.runs import JobInput, Tags
from ..rest import WORKSPACE, store
from .datastores import artifact_of, check_datastore

DATASETS = f"/dataset/v1.0{WORKSPACE}/datasets"
SAVED = f"/dataset/v1.0{WORKSPACE}/saveddatasets"
DEFINITION = f"/data/v1.0{WORKSPACE}/dataversion/<name>/versions/<version>"
UNREGISTERED = "unregistered-"  # prefix of the id of a saved data set that is used as a name
FILE_URI = re.compile(r"azureml://.*?/?datastores/([^/]+)/paths/(.*)")
WILDCARD = re.compile(r"[*?\[]")

dataset_api = Blueprint("datasets", __name__)


class Latest(Struct, rename="camel"):
    dataflow: str = ""
    properties: dict[str, Any] | None = None
    saved_dataset_id: str | None = None


class DatasetRequest(Struct, rename="camel"):
    name: str
    dataset_type: str = "file"
    latest: Latest | None = None
    description: str | None = None
    tags: Tags | None = None


class SavedRequest(Struct, rename="camel"):
    dataset_type: str
    dataflow_json: str
    properties: dict[str, Any] | None = None


class RegisterQuery(Struct, rename="camel"):
    if_exists_ok: str = "False"
    update_definition_if_exists: str = "False"


class VersionQuery(Struct, rename="camel"):
    version_id: str | None = None


def save(kind: str, dataflow: str, properties: dict[str, Any] | None) -> SavedDataset:
    """Save a definition; equal definitions have the same id."""
    content = json.dumps([kind, dataflow, properties], sort_keys=True)
    saved_id = str(uuid.uuid5(uuid.UUID(int=0), content))
    with store().transaction():
        found = store().find(SavedDataset, saved_id)
        return found or store().put(
            SavedDataset(saved_id, now(), kind, dataflow, properties=properties or {})
        )


def get_saved_dataset(saved_id: str) -> SavedDataset:
    """A saved data set by its id.

    Raises
    ------
    NotFound
        If there is no such data set.
    """
    found = store().find(SavedDataset, saved_id)
    if found is None:
        raise NotFound("data set", saved_id)
    return found


def registered_id(name: str) -> str:
    return str(uuid.uuid5(uuid.UUID(int=1), name))


def serialize_dataset(dataset: Dataset) -> Document:
    saved = get_saved_dataset(dataset.saved)
    return {
        "datasetId": registered_id(dataset.name),
        "name": dataset.name,
        "datasetType": saved.kind,
        "description": dataset.description,
        "tags": dataset.tags,
        "isVisible": True,
        "createdTime": dataset.created,
        "modifiedTime": dataset.created,
        "latest": {
            "datasetId": registered_id(dataset.name),
            "versionId": str(dataset.version),
            "dataflow": saved.dataflow,
            "savedDatasetId": saved.name,
            "properties": saved.properties,
            "createdTime": dataset.created,
        },
    }


def serialize_saved(saved: SavedDataset) -> Document:
    return {
        "id": saved.name,
        "datasetType": saved.kind,
        "dataflowJson": saved.dataflow,
        "properties": saved.properties,
    }


@dataset_api.post(SAVED)
def ensure_saved(**_: str) -> Response:
    requested = body(SavedRequest)
    return jsonify(
        serialize_saved(save(requested.dataset_type, requested.dataflow_json, requested.properties))
    )


@dataset_api.get(f"{SAVED}/<saved_id>")
def get_saved(saved_id: str, **_: str) -> Response:
    return jsonify(serialize_saved(get_saved_dataset(saved_id)))


@dataset_api.post(DATASETS)
def register_dataset(**_: str) -> Response:
    requested, options = body(DatasetRequest), query(RegisterQuery)
    latest = requested.latest or Latest()
    with store().transaction():
        before = store().find(Dataset, requested.name)
        if before is not None and options.if_exists_ok.lower() != "true":
            raise Conflict(
                "data set",
                f"Data set {requested.name} is registered already: pass create_new_version=True, "
                "or choose another name.",
            )
        saved = save(requested.dataset_type, latest.dataflow, latest.properties)
        if before is not None and before.saved == saved.name:
            dataset = before
        else:
            dataset = store().add(
                Dataset(
                    requested.name,
                    0,
                    now(),
                    saved.name,
                    requested.description or "",
                    requested.tags or {},
                )
            )
    return jsonify(serialize_dataset(dataset))


@dataset_api.get(DATASETS)
def list_datasets(**_: str) -> Response:
    newest: dict[str, Dataset] = {}
    for dataset in store().all(Dataset):
        newest.setdefault(dataset.name, dataset)
    return jsonify(value=[serialize_dataset(each) for each in newest.values()])


@dataset_api.get(f"{DATASETS}/query/name=<name>")
def get_by_name(name: str, **_: str) -> Response:
    version = query(VersionQuery).version_id
    found = store().find(Dataset, name, None if version in (None, "latest") else version)
    if found is None:
        raise NotFound("data set", name if version is None else f"{name}:{version}")
    return jsonify(serialize_dataset(found))


@dataset_api.get(f"{DATASETS}/query/savedDatasetId=<saved_id>")
def find_by_saved_id(saved_id: str, **_: str) -> Response:
    found = [each for each in store().all(Dataset) if each.saved == saved_id]
    return jsonify(value=[serialize_dataset(each) for each in found])


@dataset_api.put(f"{DATASETS}/<dataset_id>")
def update_dataset(dataset_id: str, **_: str) -> Response:
    """Change the description and the tags of the newest version."""
    requested = body(DatasetRequest)
    newest = store().get(Dataset, requested.name)
    if registered_id(requested.name) != dataset_id:
        raise NotFound("data set", dataset_id)
    changed = store().change(
        Dataset,
        newest.name,
        newest.version,
        lambda dataset: dataclasses.replace(
            dataset,
            description=dataset.description
            if requested.description is None
            else requested.description,
            tags=dataset.tags if requested.tags is None else requested.tags,
        ),
    )
    return jsonify(serialize_dataset(changed))


@dataset_api.delete(f"{DATASETS}/<name>")
@dataset_api.delete(f"{DATASETS}/query/name=<name>")
def unregister(name: str, **_: str) -> Response:
    """Remove all versions of a name; definitions and data are kept."""
    found = [each for each in store().all(Dataset) if each.name == name]
    if not found:
        raise NotFound("data set", name)
    for each in found:
        store().delete(Dataset, name, each.version)
    return Response(status=200)


@dataset_api.get(DEFINITION)
def get_definition(name: str, version: str, **_: str) -> Response:
    """The definition in the form that the data engine reads."""
    if not name.startswith(UNREGISTERED):
        raise NotFound("data asset", f"{name}:{version}")
    saved = get_saved_dataset(name.removeprefix(UNREGISTERED))
    return jsonify(legacyDataflow=engine_dataflow(saved))


def engine_dataflow(saved: SavedDataset) -> str:
    """The steps as YAML, which the SDK stores in the definition of a data set.

    Raises
    ------
    Invalid
        If the definition has no steps.
    """
    try:
        return json.loads(saved.dataflow)["meta"]["RsDataflow"]
    except (ValueError, KeyError, TypeError) as error:
        raise Invalid("data set", f"The definition of {saved.name} has no RsDataflow.") from error


def files_of_dataset(saved_id: str) -> JobInput:
    """The present files of a file data set.

    Raises
    ------
    NotSupported
        If a step of its definition does anything but read paths of the data store.
    """
    saved = get_saved_dataset(saved_id)
    try:
        definition = yaml.safe_load(engine_dataflow(saved))
        paths = definition["paths"]
    except (yaml.YAMLError, KeyError, TypeError) as error:
        raise Invalid("data set", f"The definition of {saved_id} has no paths.") from error
    if saved.kind != "file" or definition.get("transformations"):
        raise NotSupported(
            "a mount or download of this data set for a run: only file data sets of paths, without "
            "further steps. Pass it with as_named_input(name) and read it in the script"
        )
    patterns = [store_pattern(path) for path in paths]
    return JobInput(
        tuple(path for pattern in patterns for path in match_artifacts(pattern)),
        common_root(patterns),
    )


def store_pattern(path: Any) -> str:
    """A path of a definition as a pattern of artifacts."""
    [(_, uri)] = path.items()
    found = FILE_URI.fullmatch(str(uri))
    if found is None:
        raise NotSupported(f"data at {uri} as the input of a run: only data of the data store")
    check_datastore(found[1])
    return artifact_of(found[2])


def common_root(patterns: list[str]) -> str:
    """The common folder of patterns, up to the first wildcard: an input's paths start there."""
    roots = [WILDCARD.split(pattern)[0] for pattern in patterns]
    if len(roots) == 1 and roots[0] == patterns[0]:
        is_file = store().artifact(roots[0]) is not None
        return roots[0].rpartition("/")[0] if is_file else roots[0]
    folders = [root.rpartition("/")[0].split("/") for root in roots]
    shared = [parts[0] for parts in zip(*folders, strict=False) if len(set(parts)) == 1]
    return "/".join(shared)


def match_artifacts(pattern: str) -> list[str]:
    """The artifacts that match a pattern; ``**`` matches any number of folders."""
    fixed = WILDCARD.split(pattern)[0]
    if fixed == pattern:
        return [pattern]
    expression = re.compile(
        "".join(
            {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}.get(part, re.escape(part))
            for part in re.split(r"(\*\*/|\*\*|\*|\?)", pattern)
        )
    )
    folder = fixed.rpartition("/")[0]
    found = [each.path for each in store().artifacts(folder) if expression.fullmatch(each.path)]
    if not found:
        raise NotFound("data", pattern)
    return found
