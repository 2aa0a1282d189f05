"""Artifacts of runs: lists and signed URLs, in the artifact API and in run history."""

from __future__ import annotations

from flask import Blueprint, Response, jsonify, request
from msgspec import Struct

from ..bodies import Document, query
from ..core.artifacts import Artifact
from ..core.faults import NotFound
from ..rest import store
from .artifacts import ARTIFACTS, content_uri, create_artifacts, serialize_location
from .runs import RUN, find_run

RUN_ARTIFACTS = f"{RUN}/artifacts"
# azureml-mlflow downloads only from a host with ".blob.". It passes the URI to azure-storage-blob,
# which reads the first part of the path as the account unless the host contains ".core.".
BLOB_USER = "local.core.blob.@"

run_artifact_api = Blueprint("run_artifacts", __name__)


class PathQuery(Struct):
    path: str = ""


def serialize_artifact(artifact: Artifact) -> Document:
    return {
        **serialize_location(artifact.path, artifactId=artifact.path),
        "dataPath": {
            "dataStoreName": "workspaceartifactstore",
            "relativePath": artifact.path,
        },
        "size": artifact.file.stat().st_size if artifact.file.exists() else 0,
    }


@run_artifact_api.get(f"{ARTIFACTS}/<origin>/<container>")
@run_artifact_api.get(f"{ARTIFACTS}/<origin>/<container>/<path:path>")
def list_artifacts(origin: str, container: str, path: str = "", **_: str) -> Response:
    prefix = f"{origin}/{container}/{path}".rstrip("/")
    return jsonify(value=[serialize_artifact(each) for each in store().artifacts(prefix)])


@run_artifact_api.post(f"{RUN_ARTIFACTS}/batch/metadata")
def create_run_artifacts(run_id: str, **names: str) -> Response:
    origin, _, container = find_run(run_id, **names).artifacts.partition("/")
    return create_artifacts(origin, container, BLOB_USER)


@run_artifact_api.get(RUN_ARTIFACTS)
@run_artifact_api.get(f"{RUN_ARTIFACTS}/path/<path:path>")
def list_run_artifacts(run_id: str, path: str = "", **names: str) -> Response:
    run = find_run(run_id, **names)
    prefix = f"{run.artifacts}/{path or query(PathQuery).path}".rstrip("/")
    return jsonify(value=[serialize_artifact(each) for each in store().artifacts(prefix)])


@run_artifact_api.get(f"{RUN_ARTIFACTS}/contentinfo")
@run_artifact_api.get(f"{RUN_ARTIFACTS}/contentinfo/<path:path>")
@run_artifact_api.get(f"{RUN_ARTIFACTS}/artifacturi")
def get_content_information(run_id: str, path: str = "", **names: str) -> Response:
    run = find_run(run_id, **names)
    location = locate(f"{run.artifacts}/{path or query(PathQuery).path}")
    return jsonify(location["contentUri"] if request.path.endswith("/artifacturi") else location)


def locate(artifact_id: str) -> dict[str, str]:
    """The location of an artifact, and the URI from which azureml-mlflow downloads it.

    Raises
    ------
    NotFound
        If there is no such artifact.
    """
    if store().artifact(artifact_id) is None:
        raise NotFound("artifact", artifact_id)
    return serialize_location(artifact_id, contentUri=content_uri(artifact_id, "read", BLOB_USER))


# azureml-mlflow calls the next two routes to upload the folder of a model that no run has logged,
# and to download the files of registered models.


@run_artifact_api.post(f"{ARTIFACTS}/<origin>/<container>/batch/metadata")
def create_uploads(origin: str, container: str, **_: str) -> Response:
    return create_artifacts(origin, container, BLOB_USER)


@run_artifact_api.get(f"{ARTIFACTS}/<origin>/<container>/contentinfo")
def locate_artifact(origin: str, container: str, **_: str) -> Response:
    return jsonify(locate(f"{origin}/{container}/{query(PathQuery).path}"))


@run_artifact_api.get(f"{RUN_ARTIFACTS}/prefix/contentinfo/<path:path>")
def list_content_information(run_id: str, path: str, **names: str) -> Response:
    run = find_run(run_id, **names)
    found = [each.path for each in store().artifacts(f"{run.artifacts}/{path}")]
    return jsonify(
        value=[
            serialize_location(each, contentUri=content_uri(each, "read", BLOB_USER))
            for each in found
        ]
    )
