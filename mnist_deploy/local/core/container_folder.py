"""The folder of a container: uploaded scripts and registered models."""

from __future__ import annotations

import secrets
import shutil
from pathlib import Path, PurePosixPath

from ..host import filesystem
from .archives import below, unpack
from .container_spec import ContainerSpec
from .faults import NotFound
from .store import Store

MODELS = "azureml-models"


def build_folder(parent: Path, store: Store, container_spec: ContainerSpec) -> Path:
    """Create a folder under `parent` with the uploads and the models of `container_spec`.

    Raises
    ------
    NotFound
        If an upload or a model is missing in the store.
    Invalid
        If a path is outside of the folder, or an archive cannot be unpacked (see `unpack`).
    """
    folder = parent / secrets.token_hex(8)
    try:
        _fill(folder / "app", store, container_spec)
    except BaseException:
        filesystem.remove_folder(folder)
        raise
    return folder


def _fill(app: Path, store: Store, container_spec: ContainerSpec) -> None:
    (app / MODELS).mkdir(parents=True)
    for upload in container_spec.uploads:
        for path, file in uploaded_files(store, upload.artifact):
            if upload.unpack:
                unpack(file, app)
            else:
                copy_below(app, str(PurePosixPath(upload.path, path)), file)
    for model in container_spec.models:
        target = app / MODELS / model.name / str(model.version)
        target.mkdir(parents=True)
        for artifact in model.artifacts:
            for path, file in uploaded_files(store, artifact, f"model {model.id}"):
                copy_below(target, str(PurePosixPath(PurePosixPath(artifact).name, path)), file)


def uploaded_files(store: Store, artifact: str, subject: str = "") -> list[tuple[str, Path]]:
    """Return (path below `artifact`, file) of each uploaded file at or below `artifact`.

    The path is empty if `artifact` is a file. `subject` names the artifact in the error, for
    instance ``model digits:1``.

    Raises
    ------
    NotFound
        If `artifact` was not uploaded, or a file is missing.
    """
    found = store.files(artifact)
    if not found or not all(file.exists() for _, file in found):
        kind, _, name = (subject or f"upload {artifact}").partition(" ")
        raise NotFound(kind, name)
    root = PurePosixPath(artifact)
    paths = [(str(PurePosixPath(path).relative_to(root)), file) for path, file in found]
    return [("" if path == "." else path, file) for path, file in paths]


def script_environment(
    folder: Path, endpoint: str, container_spec: ContainerSpec
) -> dict[str, str]:
    """The environment variables by which Microsoft's server finds the script and the models."""
    model_dir = folder / "app" / MODELS
    if len(container_spec.models) == 1:
        model_dir /= f"{container_spec.models[0].name}/{container_spec.models[0].version}"
    return {
        "AZUREML_ENTRY_SCRIPT": container_spec.script,
        "MLFLOW_DISABLE_TELEMETRY": "true",  # otherwise MLflow sends telemetry when it is imported
        **container_spec.variables,
        "AZUREML_MODEL_DIR": str(model_dir),
        "SERVICE_NAME": endpoint,
    }


def copy_below(folder: Path, name: str, file: Path) -> None:
    path = below(folder, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(file, path)
