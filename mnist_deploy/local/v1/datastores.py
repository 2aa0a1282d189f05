"""The data store of the workspace in azureml-core's REST API: a container of blob storage.

It is not the container of the artifacts, whose URLs have another form, and from which unreferenced
blobs are deleted.
"""

from __future__ import annotations

from flask import Blueprint, Response, jsonify

from ..bodies import Document
from ..core.artifacts import DATASTORE as FOLDER
from ..core.faults import NotFound, NotSupported
from ..rest import WORKSPACE, state
from ..tokens import derive

DATASTORES = f"/datastore/v1.0{WORKSPACE}"
DATASTORE = "workspaceblobstore"
ACCOUNT = "local"
CONTAINER = "blobstore"  # in blob storage
CONTAINER_RIGHT = f"container {CONTAINER}"  # the purpose of the signatures in its URLs

datastore_api = Blueprint("datastores", __name__)


def artifact_of(path: str) -> str:
    """The artifact, or the folder of artifacts, at a path of the data store."""
    return f"{FOLDER}/{path.strip('/')}".rstrip("/")


def check_datastore(name: str) -> None:
    if name != DATASTORE:
        raise NotFound("data store", name, f"The only data store is {DATASTORE}.")


def serialize_datastore() -> Document:
    signature = derive(state().token, CONTAINER_RIGHT)
    token = f"sv=2025-01-05&sr=c&sp=rwdlac&sig={signature}"
    return {
        "name": DATASTORE,
        "dataStoreType": "AzureBlob",
        "hasBeenValidated": True,
        "tags": {},
        "isDefault": True,
        "azureStorageSection": {
            "accountName": ACCOUNT,
            "containerName": CONTAINER,
            # The SDK joins account, "blob" and endpoint: the part before the @ is user info.
            "endpoint": f"@{state().host}",
            "protocol": "https",
            "credentialType": "Sas",
            "credential": token,
            "sasToken": token,
            "isSas": True,
            "blobCacheTimeout": 0,
        },
    }


@datastore_api.get(f"{DATASTORES}/default")
def get_default(**_: str) -> Response:
    return jsonify(serialize_datastore())


@datastore_api.put(f"{DATASTORES}/default/<name>")
def set_default(name: str, **_: str) -> Response:
    check_datastore(name)
    return Response(status=200)


@datastore_api.get(f"{DATASTORES}/datastores")
def list_datastores(**_: str) -> Response:
    return jsonify(value=[serialize_datastore()])


@datastore_api.get(f"{DATASTORES}/datastores/<name>")
def get_datastore(name: str, **_: str) -> Response:
    check_datastore(name)
    return jsonify(serialize_datastore())


@datastore_api.post(f"{DATASTORES}/datastores")
@datastore_api.put(f"{DATASTORES}/datastores/<name>")
@datastore_api.delete(f"{DATASTORES}/datastores/<name>")
def reject_change(**_: str) -> Response:
    raise NotSupported(f"data stores other than {DATASTORE}: none can be registered or removed")
