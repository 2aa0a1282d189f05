"""Code assets: folders of scripts that deployments and jobs upload."""

from __future__ import annotations

import uuid
from urllib.parse import urlsplit

from flask import Blueprint, Response, jsonify
from msgspec import Struct

from ..bodies import Document, Labels, body, query, texts
from ..core.faults import Conflict, Invalid
from ..core.records import Code, now
from ..rest import WORKSPACE, store
from .datastores import CONTAINER, folder_url, sas_token
from .resources import read_page_token, resource, serialize_page

CODES = f"{WORKSPACE}/codes"

code_api = Blueprint("codes", __name__)


class CodeProperties(Struct, rename="camel"):
    code_uri: str = ""
    properties: Labels = {}


class CodeRequest(Struct):
    properties: CodeProperties


class CodeQuery(Struct):
    hash: str | None = None


@code_api.get(f"{CODES}/<name>/versions")
def find_codes(name: str, **_: str) -> Response:
    """The versions of a name; with a hash, the code assets of any name with that content."""
    digest = query(CodeQuery).hash
    scan = store().scan(Code, name=None if digest else name, before=read_page_token())
    found = (each for each in scan if digest in (None, each[1].digest))
    return jsonify(serialize_page(found, serialize_code))


@code_api.post(f"{CODES}/<name>/versions/<version>/startPendingUpload")
def start_code_upload(name: str, version: str, **_: str) -> Response:
    """Create a storage container for one upload, and a signed URL for writing to it."""
    folder = f"Code/{uuid.uuid4().hex}"
    url = folder_url(folder)
    return jsonify(
        pendingUploadId=folder,
        pendingUploadType="TemporaryBlobReference",
        blobReferenceForConsumption={
            "blobUri": url,
            "storageAccountArmId": "",
            "credential": {
                "credentialType": "SAS",
                "sasUri": f"{url}?{sas_token(folder)}",
            },
        },
    )


@code_api.get(f"{CODES}/<name>/versions/<version>")
def show_code_version(name: str, version: str, **_: str) -> Response:
    return jsonify(serialize_code(store().get(Code, name, version)))


@code_api.put(f"{CODES}/<name>/versions/<version>")
def put_code_version(name: str, version: str, **_: str) -> Response:
    requested = body(CodeRequest).properties
    labels = texts(requested.properties)
    path = parse_code_uri(requested.code_uri)
    code = Code(name, version, (path,), now(), labels.get("hash_sha256", ""), {"v2": labels})
    with store().transaction():
        before = store().find(Code, name, version)
        if before is None:
            store().put(code)
        elif before.artifacts != code.artifacts:
            raise Conflict("code", "Asset paths cannot be updated.")
    return jsonify(serialize_code(before or code))


def parse_code_uri(uri: str) -> str:
    """The folder of uploads that the URL of a code asset names."""
    container, _, path = urlsplit(uri).path.strip("/").partition("/")
    if container != CONTAINER or not path.startswith("Code/"):
        raise Invalid("code", f"{uri!r} is not below a URL that startPendingUpload has returned.")
    return path


def serialize_code(code: Code) -> Document:
    properties = {
        "codeUri": folder_url(code.artifacts[0]),
        "description": "",
        "tags": {},
        "properties": code.other.get("v2", {}),
        "isAnonymous": True,
        "isArchived": False,
        "provisioningState": "Succeeded",
    }
    return resource(("codes", code.name, "versions", code.version), properties, code.created)
