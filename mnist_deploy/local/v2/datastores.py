"""The data store of the workspace in azure-ai-ml's REST API, to which the SDK uploads files."""

from __future__ import annotations

from flask import Blueprint, Response, jsonify

from ..bodies import Document
from ..core.faults import NotFound
from ..rest import WORKSPACE, state
from ..tokens import derive
from .resources import resource, serialize_list, workspace_names

DATASTORES = f"{WORKSPACE}/datastores"
DATASTORE = "workspaceblobstore"
ACCOUNT, CONTAINER = "local", "blobs"

datastore_api = Blueprint("datastores", __name__)


def path_uri(path: str) -> str:
    """The URI of an upload in the form that the SDK uses."""
    subscription, group, workspace = workspace_names()
    return (
        f"azureml://subscriptions/{subscription}/resourcegroups/{group}/workspaces/{workspace}"
        f"/datastores/{DATASTORE}/paths/{path}"
    )


def folder_url(path: str) -> str:
    """The URL of a folder of uploads in blob storage.

    The SDK joins account, ``blob`` and suffix with dots: everything before the @ is user info.
    """
    return f"https://{ACCOUNT}.blob.{suffix()}/{CONTAINER}/{path}"


def suffix() -> str:
    return f"@{state().host}"


def sas_token(path: str = "") -> str:
    """A signature that grants read and write access to a folder, by default to all folders."""
    signature = derive(state().token, f"folder {path}")
    return f"sv=2025-01-05&sr=c&sp=rwl&sig={signature}"


@datastore_api.get(DATASTORES)
def list_datastores(**_: str) -> Response:
    return jsonify(serialize_list([DATASTORE], serialize_datastore))


@datastore_api.get(f"{DATASTORES}/<name>")
def show_datastore(name: str, **_: str) -> Response:
    check_datastore_name(name)
    return jsonify(serialize_datastore(name))


@datastore_api.post(f"{DATASTORES}/<name>/listSecrets")
def list_secrets(name: str, **_: str) -> Response:
    check_datastore_name(name)
    return jsonify(secretsType="Sas", sasToken=sas_token())


def check_datastore_name(name: str) -> None:
    if name != DATASTORE:
        raise NotFound("data store", name)


def serialize_datastore(name: str) -> Document:
    properties = {
        "datastoreType": "AzureBlob",
        "credentials": {"credentialsType": "Sas"},
        "accountName": ACCOUNT,
        "containerName": CONTAINER,
        "endpoint": suffix(),
        "protocol": "https",
        "description": "The folder of the local workspace",
        "tags": {},
        "properties": {},
        "isDefault": True,
    }
    return resource(("datastores", name), properties)
