"""The files of runs, as MLflow's own client uploads, lists and downloads them."""

from __future__ import annotations

from collections.abc import Iterator

from flask import Blueprint, Response, jsonify, request, send_file
from msgspec import Struct

from ..bodies import Document, query
from ..core.faults import Invalid, NotFound
from ..core.runs import Run
from ..rest import store
from .fields import runs

ARTIFACTS = "/api/2.0/mlflow-artifacts/artifacts"
FOLDER = "artifacts"  # of a run, in the URI of its artifacts

artifact_api = Blueprint("artifacts", __name__)


class Listing(Struct):
    path: str = ""


def resolve(path: str) -> tuple[Run, str]:
    """The run that a path ``EXPERIMENT/RUN/artifacts/…`` names, and the path in the store."""
    experiment, _, rest = path.strip("/").partition("/")
    run_id, _, rest = rest.partition("/")
    folder, _, name = rest.partition("/")
    if folder != FOLDER:
        raise Invalid("path", f"{path!r} is not the path of a run's artifact.")
    run = runs().get(run_id)
    if run.experiment != experiment:
        raise NotFound("run", f"{run_id} of experiment {experiment}")
    return run, f"{run.artifacts}/{name}".rstrip("/")


def chunks() -> Iterator[bytes]:
    return iter(lambda: request.stream.read(1 << 20), b"")


@artifact_api.put(f"{ARTIFACTS}/<path:path>")
def upload_artifact(path: str, **_: str) -> Response:
    run, place = resolve(path)
    if place == run.artifacts:
        raise Invalid("path", f"{path!r} does not name a file.")
    store().write(place, chunks())
    return jsonify({})


@artifact_api.get(f"{ARTIFACTS}/<path:path>")
def download_artifact(path: str, **_: str) -> Response:
    place = resolve(path)[1]
    found = store().artifact(place)
    if found is None or not found.file.exists():
        raise NotFound("artifact", path)
    return send_file(found.file, mimetype="application/octet-stream")


@artifact_api.get(ARTIFACTS)
def list_artifacts(**_: str) -> Response:
    """The files and folders directly below a path."""
    folder = resolve(query(Listing).path)[1]
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
