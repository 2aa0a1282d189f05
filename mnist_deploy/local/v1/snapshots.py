"""Snapshots of source folders: code assets that azureml-core uploads file by file."""

from __future__ import annotations

import uuid
from base64 import urlsafe_b64decode
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from flask import Blueprint, Response, jsonify
from msgspec import Struct

from ..bodies import body
from ..core.artifacts import check_path, upload_of
from ..core.faults import Conflict, Invalid, NotFound, NotSupported
from ..core.records import Code, now
from ..rest import WORKSPACE, store
from .artifacts import content_uri

CONTENT = "/content/<api_version>" + WORKSPACE
SNAPSHOT_VERSION = "1"  # the version of the code asset that has a snapshot's id as its name

snapshot_api = Blueprint("snapshots", __name__)


class FileNames(Struct, rename={"names": "FileNames"}):
    names: list[str]


class FileNode(Struct, rename="pascal"):
    full_name: str
    blob_uri: str


class Revisions(Struct, rename="pascal"):
    file_nodes: list[FileNode] = []


class SnapshotRequest(Struct, rename="pascal"):
    dir_tree_node: dict[str, Any]
    file_revision_list: Revisions
    parent_snapshot_id: str | None = None
    properties: dict[str, Any] | None = None


@snapshot_api.get(f"{CONTENT}/snapshots/latest/metadata")
def get_latest(**_: str) -> Response:
    """Respond that there is no earlier snapshot: the SDK has a cache of its own uploads."""
    return jsonify(root={}, id=None)


@snapshot_api.post(f"{CONTENT}/snapshots/getblob")
def create_blobs(**_: str) -> Response:
    folder = f"Code/{uuid.uuid4().hex}"
    names = body(FileNames).names
    return jsonify(
        fileNodes=[
            {
                "fullName": name,
                "blobUri": content_uri(check_path(f"{folder}/{slashes(name)}"), "write"),
            }
            for name in names
        ]
    )


def slashes(name: str) -> str:
    return name.replace("\\", "/").removeprefix("./")


@snapshot_api.post(f"{CONTENT}/snapshots/<snapshot_id>")
def create_snapshot(snapshot_id: str, **_: str) -> Response:
    requested = body(SnapshotRequest)
    with store().transaction():
        files = files_of(requested.parent_snapshot_id) if requested.parent_snapshot_id else {}
        for node in requested.file_revision_list.file_nodes:
            files[slashes(node.full_name)] = uploaded_path(node.blob_uri)
        names = set(list_tree(requested.dir_tree_node))
        missing = names - files.keys()
        if missing:
            raise Invalid(
                "snapshot",
                f"Files were not uploaded: {', '.join(sorted(missing)[:5])}. Upload them first.",
            )
        artifacts = tuple(files[name] for name in sorted(names))
        try:
            store().put(Code(snapshot_id, SNAPSHOT_VERSION, artifacts, now()))
        except Conflict:
            if store().get(Code, snapshot_id, SNAPSHOT_VERSION).artifacts != artifacts:
                raise
    return jsonify(id=snapshot_id)


def files_of(snapshot_id: str) -> dict[str, str]:
    """The artifact of each file of a snapshot, by the file's path in its folder."""
    code = store().find(Code, snapshot_id, SNAPSHOT_VERSION)
    if code is None:
        raise NotFound("snapshot", snapshot_id)
    return {path.removeprefix(f"{upload_of(path)}/"): path for path in code.artifacts}


def uploaded_path(blob_uri: str) -> str:
    """The artifact that a URL of `create_blobs` names."""
    try:
        path = urlsafe_b64decode(urlsplit(blob_uri).path.rpartition("/")[2]).decode()
    except ValueError:
        path = ""
    if not path.startswith("Code/"):
        raise Invalid("snapshot", f"{blob_uri!r} is not a URL that getblob has returned.")
    return path


def list_tree(node: dict[str, Any], folder: str = "") -> Iterator[str]:
    """The paths of the files in a tree of folders, as the SDK sends it."""
    children = node.get("children") or node.get("Children") or []
    children = list(children.values()) if isinstance(children, dict) else children
    if not isinstance(children, list) or not all(isinstance(child, dict) for child in children):
        raise Invalid(
            "snapshot", "DirTreeNode has children that are not objects with name and type."
        )
    for child in children:
        name = str(child.get("name") or child.get("Name"))
        kind = str(child.get("type") or child.get("Type"))
        path = f"{folder}{slashes(name)}"
        if kind.lower() == "directory":
            yield from list_tree(child, f"{path}/")
        else:
            yield path


@snapshot_api.post(f"{CONTENT}/snapshots/uri/<snapshot_id>")
def create_git_snapshot(**_: str) -> Response:
    raise NotSupported("runs of a git repository: clone it, and submit its folder")
