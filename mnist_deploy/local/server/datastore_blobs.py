"""The container of blob storage behind the data store: uploads, downloads, listings."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from urllib.parse import parse_qsl

from flask import Blueprint, Response, request

from ..core.artifacts import DATASTORE as FOLDER
from ..core.artifacts import Artifact
from ..core.faults import Fault
from ..host import filesystem
from ..rest import store
from ..v1.datastores import CONTAINER, CONTAINER_RIGHT
from .blobs import (
    add_fields,
    blob_error_response,
    blob_headers,
    check_signature,
    is_signature,
    read,
    write,
    xml,
)

datastore_blob_api = Blueprint("datastore_blobs", __name__)


def is_container_signed(token: str, query: str) -> bool:
    """Whether the query of a URL has the signature for the container."""
    return is_signature(dict(parse_qsl(query)).get("sig", ""), token, CONTAINER_RIGHT)


@datastore_blob_api.before_request
def check_container_signature() -> None:
    check_signature(CONTAINER_RIGHT)


@datastore_blob_api.get(f"/{CONTAINER}")
def list_container() -> Response:
    """List the blobs with a prefix; with a delimiter, folders instead of their blobs."""
    if request.args.get("comp") != "list":
        return Response(status=200)
    prefix, delimiter = request.args.get("prefix", ""), request.args.get("delimiter", "")
    listing = ElementTree.Element("EnumerationResults", ContainerName=CONTAINER)
    add_fields(listing, None, {"Prefix": prefix, "Delimiter": delimiter})
    blobs = ElementTree.SubElement(listing, "Blobs")
    folders: set[str] = set()
    for artifact in blobs_with_prefix(prefix):
        name = artifact.path.removeprefix(f"{FOLDER}/")
        rest = name[len(prefix) :]
        if delimiter and delimiter in rest:
            folder = prefix + rest.partition(delimiter)[0] + delimiter
            if folder not in folders:
                folders.add(folder)
                add_fields(blobs, "BlobPrefix", {"Name": folder})
            continue
        blob = ElementTree.SubElement(blobs, "Blob")
        ElementTree.SubElement(blob, "Name").text = name
        add_fields(blob, "Properties", blob_headers(artifact) | {"BlobType": "BlockBlob"})
        add_fields(blob, "Metadata", artifact.metadata)
    ElementTree.SubElement(listing, "NextMarker")
    return xml(listing)


def blobs_with_prefix(prefix: str) -> Iterator[Artifact]:
    """Yield the blobs whose names start with `prefix`, which may end within a folder's name."""
    folder = prefix.rpartition("/")[0]
    for artifact in store().artifacts(f"{FOLDER}/{folder}".rstrip("/")):
        if artifact.path.removeprefix(f"{FOLDER}/").startswith(prefix):
            yield artifact


@datastore_blob_api.route(f"/{CONTAINER}/<path:name>", methods=["GET", "PUT"])
def access_blob(name: str) -> Response:
    path = f"{FOLDER}/{filesystem.with_slashes(name)}"  # azureml-core sends paths of its system
    return write(path) if request.method == "PUT" else read(path)


datastore_blob_api.register_error_handler(Fault, blob_error_response)
