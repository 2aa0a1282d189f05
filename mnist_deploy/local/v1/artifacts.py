"""Artifacts: signed blob URLs for uploads and downloads."""

from __future__ import annotations

from base64 import urlsafe_b64encode

from flask import Blueprint, Response, jsonify
from msgspec import Struct

from ..bodies import body
from ..core.artifacts import check_path
from ..core.faults import NotFound, NotSupported
from ..host import filesystem
from ..rest import WORKSPACE, state, store
from ..tokens import derive

ARTIFACTS = f"/artifact/v2.0{WORKSPACE}/artifacts"
PRIVATE_WHEELS = "azureml-private-packages"  # the container of Environment.add_private_pip_wheel

artifact_api = Blueprint("artifacts", __name__)


def sign(blob: str, right: str) -> str:
    return derive(state().token, f"{right} {blob}")


def content_uri(path: str, right: str, user: str | None = None) -> str:
    """A signed URI that grants the right to ``read`` or ``write`` one artifact.

    The SDK splits the host of a blob URI at its dots. It finds the expected parts in the user info
    before the @, which blob storage ignores. The path is encoded in base64, because the SDK quotes
    a quoted path a second time.
    """
    host = state().host
    if user is None:
        user = "local.blob.@" if right == "write" else ""
    blob = urlsafe_b64encode(path.encode()).decode()
    return f"https://{user}{host}/blobs/{blob}?sig={sign(blob, right)}"


def serialize_location(artifact_id: str, **more: str) -> dict[str, str]:
    origin, container, path = artifact_id.split("/", 2)
    return {"origin": origin, "container": container, "path": path, **more}


class ArtifactPath(Struct):
    path: str


class ArtifactPathsRequest(Struct):
    paths: list[ArtifactPath]


@artifact_api.post(f"{ARTIFACTS}/batch/metadata/<origin>/<container>")
def create_artifacts(origin: str, container: str, user: str | None = None, **_: str) -> Response:
    if container == PRIVATE_WHEELS:
        raise NotSupported(
            "private pip wheels: no image is built here. Install the wheel beside mnist_deploy"
        )
    artifacts, contents = {}, {}
    for path in [each.path for each in body(ArtifactPathsRequest).paths]:
        artifact_id = check_path(f"{origin}/{container}/{filesystem.with_slashes(path)}")
        artifacts[path] = serialize_location(artifact_id, artifactId=artifact_id)
        contents[path] = serialize_location(
            artifact_id, contentUri=content_uri(artifact_id, "write", user)
        )
    return jsonify(artifacts=artifacts, artifactContentInformation=contents, errors={})


@artifact_api.get(f"{ARTIFACTS}/contentinfo/<origin>/<container>/<path:path>")
def content_information(origin: str, container: str, path: str, **_: str) -> Response:
    artifact = store().artifact(f"{origin}/{container}/{path}")
    if artifact is None:
        raise NotFound("artifact", f"{origin}/{container}/{path}")
    return jsonify(serialize_location(artifact.path, contentUri=content_uri(artifact.path, "read")))


@artifact_api.get(f"{ARTIFACTS}/prefix/contentinfo/<origin>/<container>/<path:path>")
def content_information_by_prefix(origin: str, container: str, path: str, **_: str) -> Response:
    found = [each.path for each in store().artifacts(f"{origin}/{container}/{path}".rstrip("/"))]
    return jsonify(
        value=[serialize_location(each, contentUri=content_uri(each, "read")) for each in found]
    )
