"""Artifacts: where the bytes of models and scripts go, and where they are fetched from.

Two halves, as on Azure: the artifact service hands out signed URIs, the blob storage
takes and gives bytes to whoever holds one.
"""

from __future__ import annotations

import hmac
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import PurePosixPath

from flask import Blueprint, Response, current_app, jsonify, request, send_file

from ..core.store import Store
from ..tls import derive
from .refusal import Refusal, not_supported

WORKSPACE = (
    "/subscriptions/<subscription>/resourceGroups/<group>"
    "/providers/Microsoft.MachineLearningServices/workspaces/<workspace>"
)
ARTIFACTS = f"/artifact/v2.0{WORKSPACE}/artifacts"
NAME = re.compile("[0-9a-f]{32}")
STORAGE_DATE = "Thu, 01 Jan 2026 00:00:00 GMT"

artifact_api = Blueprint("artifacts", __name__)


def store() -> Store:
    return current_app.extensions["store"]


def sign(blob: str, right: str) -> str:
    return derive(current_app.config["TOKEN"], f"{right} {blob}")


def content_uri(blob: str, right: str) -> str:
    """A URI that allows to ``read`` or ``write`` one blob.

    For writing it has the form that survives the SDK's own splitting of the host at its
    dots: everything before the @ is user info, which storage ignores.
    """
    host = current_app.config["HOST"]
    user = "local.blob.@" if right == "write" else ""
    return f"https://{user}{host}/blobs/{blob}?sig={sign(blob, right)}"


def describe(artifact_id: str, **more: str) -> dict[str, str]:
    origin, container, path = artifact_id.split("/", 2)
    return {"origin": origin, "container": container, "path": path, **more}


@artifact_api.post(f"{ARTIFACTS}/batch/metadata/<origin>/<container>")
def create_artifacts(origin: str, container: str, **_: str) -> Response:
    artifacts, contents = {}, {}
    for entry in request.get_json()["paths"]:
        path = checked_path(entry["path"])
        artifact_id = f"{origin}/{container}/{path}"
        blob = store().add_artifact(artifact_id)
        artifacts[path] = describe(artifact_id, artifactId=artifact_id)
        contents[path] = describe(artifact_id, contentUri=content_uri(blob, "write"))
    return jsonify(artifacts=artifacts, artifactContentInformation=contents, errors={})


def checked_path(path: str) -> str:
    """`path`, if it stays below the folder that it will be downloaded to."""
    parts = PurePosixPath(path).parts
    if not parts or parts[0] == "/" or ".." in parts or "\\" in path or "\0" in path:
        raise Refusal(400, "InvalidPath", f"An artifact's path must stay in its folder: {path!r}")
    return path


@artifact_api.get(f"{ARTIFACTS}/contentinfo/<origin>/<container>/<path:path>")
def content_information(origin: str, container: str, path: str, **_: str) -> Response:
    artifact_id = f"{origin}/{container}/{path}"
    for found, file in store().artifacts(artifact_id):
        if found == artifact_id and file.exists():
            return jsonify(describe(found, contentUri=content_uri(file.name, "read")))
    raise Refusal(404, "ArtifactNotFound", f"There is no artifact {artifact_id}.")


@artifact_api.get(f"{ARTIFACTS}/prefix/contentinfo/<origin>/<container>/<path:path>")
def content_information_by_prefix(origin: str, container: str, path: str, **_: str) -> Response:
    found = store().artifacts(f"{origin}/{container}/{path}")
    return jsonify(
        value=[describe(each, contentUri=content_uri(file.name, "read")) for each, file in found]
    )


@artifact_api.route("/blobs/<blob>", methods=["GET", "PUT"])
def blob_content(blob: str) -> Response:
    """Blob storage, as far as the SDK's client speaks it."""
    right = "write" if request.method in ("PUT", "HEAD") else "read"
    offered = request.args.get("sig", "").encode()
    if not hmac.compare_digest(offered, sign(blob, right).encode()):
        raise Refusal(403, "AuthenticationFailed", "This URI was not signed by this workspace.")
    if not NAME.fullmatch(blob):
        raise Refusal(404, "BlobNotFound", "That is no name of a blob.")
    if request.method == "PUT":
        return put_blob(blob)
    file = store().blobs.file(blob)
    if not file.exists():
        raise Refusal(404, "BlobNotFound", "Nothing was uploaded here.")
    answer = send_file(file, mimetype="application/octet-stream", etag=False)
    answer.headers |= {"x-ms-blob-type": "BlockBlob", "ETag": f'"{blob}"'}
    return answer


def put_blob(blob: str) -> Response:
    kind = request.args.get("comp")
    if kind == "block":
        store().blobs.stage(blob, request.args["blockid"], body())
    elif kind == "blocklist":
        try:
            blocks = [entry.text or "" for entry in ElementTree.fromstring(request.get_data())]
            store().blobs.commit(blob, blocks)
        except (ElementTree.ParseError, FileNotFoundError) as error:
            raise Refusal(
                400, "InvalidBlockList", f"These blocks were not uploaded: {error}"
            ) from error
    elif kind is None:
        store().blobs.write(blob, body())
    else:
        raise not_supported(f"the blob storage call comp={kind}")
    answer = Response(status=201)
    answer.headers |= {"ETag": f'"{blob}"', "Last-Modified": STORAGE_DATE}
    return answer


def body() -> Iterator[bytes]:
    return iter(lambda: request.stream.read(1 << 20), b"")
