"""Artifacts of runs: the routes by which MLflow's own client uploads, lists and downloads files."""

from __future__ import annotations

from collections.abc import Iterator

from flask import Blueprint, Response, jsonify, request, send_file
from msgspec import Struct

from ..bodies import Document, query
from ..core.faults import Invalid, NotFound
from ..core.records import Model
from ..core.runs import Run
from ..rest import store
from .fields import runs

ARTIFACTS = "/api/2.0/mlflow-artifacts/artifacts"
FOLDER = "artifacts"  # the third part of an artifact's path, after experiment and run
MODELS = "models"  # the first part of the path of a registered model's file

artifact_api = Blueprint("artifacts", __name__)


class ArtifactQuery(Struct):
    path: str = ""


def find_stored_path(path: str) -> str:
    """The path in the store of ``EXPERIMENT/RUN/artifacts/…`` or ``models/NAME/VERSION/…``."""
    if path.startswith(f"{MODELS}/"):
        _, name, version, *rest = [*path.split("/", 3), "", ""]
        return f"{store().get(Model, name, version).path}/{rest[0]}".rstrip("/")
    return find_artifact_path(path)[1]


def find_artifact_path(path: str) -> tuple[Run, str]:
    """The run that a path ``EXPERIMENT/RUN/artifacts/…`` names, and the path in the store.

    Raises
    ------
    Invalid
        If the path has another form.
    NotFound
        If the run does not exist, or belongs to another experiment.
    """
    experiment, _, rest = path.strip("/").partition("/")
    run_id, _, rest = rest.partition("/")
    folder, _, name = rest.partition("/")
    if folder != FOLDER:
        raise Invalid(
            "path",
            f"{path!r} is not the path of a run's artifact: expected EXPERIMENT/RUN/{FOLDER}/NAME.",
        )
    run = runs().get(run_id)
    if run.experiment != experiment:
        raise NotFound("run", f"{run_id} of experiment {experiment}")
    return run, f"{run.artifacts}/{name}".rstrip("/")


def read_body_chunks() -> Iterator[bytes]:
    return iter(lambda: request.stream.read(1 << 20), b"")


@artifact_api.put(f"{ARTIFACTS}/<path:path>")
def upload_artifact(path: str, **_: str) -> Response:
    run, stored = find_artifact_path(path)
    if stored == run.artifacts:
        raise Invalid("path", f"{path!r} is the folder of all artifacts: expected a file's path.")
    store().write(stored, read_body_chunks())
    return jsonify({})


@artifact_api.get(f"{ARTIFACTS}/<path:path>")
def download_artifact(path: str, **_: str) -> Response:
    stored = find_stored_path(path)
    found = store().artifact(stored)
    if found is None or not found.file.exists():
        raise NotFound("artifact", path)
    return send_file(found.file, mimetype="application/octet-stream")


@artifact_api.get(ARTIFACTS)
def list_artifacts(**_: str) -> Response:
    """The files and folders directly below a path."""
    folder = find_stored_path(query(ArtifactQuery).path)
    files: list[Document] = []
    folders: set[str] = set()
    for each in store().artifacts(folder):
        name, *rest = each.path[len(folder) + 1 :].split("/", 1)
        if rest:
            folders.add(name)
        elif name:
            size = each.file.stat().st_size if each.file.exists() else 0
            files.append({"path": name, "is_dir": False, "file_size": size})
    return jsonify(files=[*files, *({"path": name, "is_dir": True} for name in sorted(folders))])
