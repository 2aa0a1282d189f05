"""Codes: folders of scripts that deployments upload."""

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
from .resources import page, resource

CODES = f"{WORKSPACE}/codes"

code_api = Blueprint("codes", __name__)


class Properties(Struct, rename="camel"):
    code_uri: str = ""
    properties: Labels = {}


class Asked(Struct):
    properties: Properties


class Lookup(Struct):
    hash: str | None = None


@code_api.get(f"{CODES}/<name>/versions")
def find_codes(name: str, **_: str) -> Response:
    """The versions of a name; with a hash, every code of that content, whatever its name."""
    digest = query(Lookup).hash
    found = store().all(Code)
    wanted = [each for each in found if (each.digest == digest if digest else each.name == name)]
    return jsonify(page(wanted, describe))


@code_api.post(f"{CODES}/<name>/versions/<version>/startPendingUpload")
def start_upload(name: str, version: str, **_: str) -> Response:
    """A storage container of its own, and an address that allows to fill it."""
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
def show_version(name: str, version: str, **_: str) -> Response:
    return jsonify(describe(store().get(Code, name, version)))


@code_api.put(f"{CODES}/<name>/versions/<version>")
def put_version(name: str, version: str, **_: str) -> Response:
    asked = body(Asked).properties
    labels = texts(asked.properties)
    path = parse_uri(asked.code_uri)
    code = Code(name, version, (path,), now(), labels.get("hash_sha256", ""), {"v2": labels})
    with store().transaction():
        before = store().find(Code, name, version)
        if before is None:
            store().put(code)
        elif before.artifacts != code.artifacts:
            raise Conflict("code", "Asset paths cannot be updated.")
    return jsonify(describe(before or code))


def parse_uri(uri: str) -> str:
    """The folder of uploads that a code's address leads to."""
    container, _, path = urlsplit(uri).path.strip("/").partition("/")
    if container != CONTAINER or not path.startswith("Code/"):
        raise Invalid("code", f"{uri!r} is not below an address that startPendingUpload gave.")
    return path


def describe(code: Code) -> Document:
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
