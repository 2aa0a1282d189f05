"""What lies in a container: the scripts that were uploaded, and the registered models."""

from __future__ import annotations

import secrets
import shutil
import tarfile
from pathlib import Path, PurePosixPath

from ..v1.refusal import Refusal
from .faults import Invalid
from .operations import Document
from .records import Model
from .store import Store

UNPACKED_LIMIT = 4 << 30  # bytes
MODELS = "azureml-models"


def build_folder(parent: Path, store: Store, recipe: Document, models: list[Document]) -> Path:
    """A new folder under `parent` with the assets of `recipe` and the files of `models`.

    Parameters
    ----------
    recipe : dict
        The SDK's environmentImageRequest: ``assets``, each with ``id``, ``url`` and perhaps
        ``unpack``.
    models : list of dict
        Registered models, as the SDK is answered.
    """
    folder = parent / secrets.token_hex(8)
    try:
        _fill(folder / "app", store, recipe, models)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return folder


def _fill(app: Path, store: Store, recipe: Document, models: list[Document]) -> None:
    (app / MODELS).mkdir(parents=True)
    for asset in recipe["assets"]:
        file = uploaded_file(store, asset["url"])
        if asset.get("unpack"):
            unpack(file, app)
        else:
            copy_below(app, asset["id"], file)
    for model in models:
        target = app / MODELS / model["name"] / str(model["version"])
        target.mkdir(parents=True)
        for prefix in store.get(Model, model["name"], model["version"]).artifacts:
            stripped = PurePosixPath(prefix.split("/", 2)[2]).parent
            for artifact_id, file in store.files(prefix):
                path = PurePosixPath(artifact_id.split("/", 2)[2]).relative_to(stripped)
                copy_below(target, str(path), file)


def script_environment(
    folder: Path, service: str, recipe: Document, models: list[Document]
) -> dict[str, str]:
    """The environment variables that tell Microsoft's server what to run and where models are."""
    model_dir = folder / "app" / MODELS
    if len(models) == 1:
        model_dir /= f"{models[0]['name']}/{models[0]['version']}"
    own = (recipe.get("environment") or {}).get("environmentVariables") or {}
    return {
        "AZUREML_ENTRY_SCRIPT": recipe["driverProgram"],
        **{name: str(value) for name, value in own.items()},
        "AZUREML_MODEL_DIR": str(model_dir),
        "SERVICE_NAME": service,
    }


def uploaded_file(store: Store, url: str) -> Path:
    artifact_id = url.removeprefix("aml://artifact/")
    artifact = store.artifact(artifact_id)
    if artifact is None:
        raise Invalid("artifact", f"{url} was not uploaded to this workspace.")
    return artifact.file


def below(folder: Path, name: str) -> Path:
    """The path of `name` inside `folder`, whatever is in the name."""
    path = (folder / name).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise Refusal(400, "InvalidPath", f"{name!r} is not inside its folder.")
    return path


def copy_below(folder: Path, name: str, file: Path) -> None:
    path = below(folder, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(file, path)


def unpack(archive: Path, folder: Path) -> None:
    """Unpack the regular files of a tar archive, at most `UNPACKED_LIMIT` bytes of them.

    The archive's first entry lands in `folder` itself: the SDK packs a source directory
    under its name, but a script of the image API under its absolute path.
    """
    left = UNPACKED_LIMIT
    with tarfile.open(archive) as tar:
        root: PurePosixPath | None = None
        for member in tar:
            path = PurePosixPath(member.name)
            root = path.parent if root is None else root
            left -= member.size
            if left < 0:
                raise Refusal(400, "TooLarge", f"More than {UNPACKED_LIMIT} bytes of scripts.")
            source = tar.extractfile(member) if member.isfile() else None
            if source is not None and path.is_relative_to(root):
                target = below(folder, str(path.relative_to(root)))
                target.parent.mkdir(parents=True, exist_ok=True)
                with source, open(target, "wb") as copy:
                    shutil.copyfileobj(source, copy)
