"""Registered models: fetch one, download it, and verify its file before anybody loads it."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import TYPE_CHECKING

from packaging.version import InvalidVersion, Version

from .errors import ModelError
from .sdk import TRANSFER_TIMEOUT, Deadline, check_kind, not_registered, reason, workspace_call

if TYPE_CHECKING:
    from azureml.core import Model, Workspace

MODEL_NAME = "sklearn_mnist"
MODEL_FILE = "sklearn_mnist_model.pkl"

# scikit-learn writes its version into each estimator. In a pickle: the name, one of the opcodes
# that remember it, one of those that begin a string, and the length of what follows.
_SAVED_WITH = re.compile(rb"_sklearn_version(?:\x94|q.|r.{4})(?:\x8c(.)|X(.)\0{3})", re.S)
_SUFFIXES = {".pkl", ".pickle", ".joblib"}


def fetch_model(ws: Workspace, name: str = MODEL_NAME, version: int | None = None) -> Model:
    """Fetch a registered model, by default the newest version.

    Wraps the tutorial's ``Model(ws, 'sklearn_mnist')``.

    Parameters
    ----------
    ws : azureml.core.Workspace
    name : str
    version : int, optional

    Returns
    -------
    azureml.core.Model

    Raises
    ------
    ModelError
        It is not registered; says which models, or which of its versions, are.
    WorkspaceError
        The workspace does not answer.
    """
    from azureml.core import Model

    if model := find_model(ws, name, version):
        return model
    with workspace_call(ws, "list its models"):
        models = Deadline().call(Model.list, ws, latest=version is None)
    known = [each for each in models if each.name == name] or models
    raise ModelError(not_registered(ws, f"model {name!r}", version, (each.id for each in known)))


def find_model(ws: Workspace, name: str, version: int | None = None) -> Model | None:
    """Fetch a registered model; None if it is not registered."""
    from azureml.core import Model

    with workspace_call(ws, f"fetch the model {name!r}"):
        try:
            wanted = None if version is None else str(version)  # 0 is the newest to the SDK
            return Deadline().call(Model, ws, name, version=wanted)
        except Exception as error:
            if "ModelNotFound" not in str(error):
                raise
            return None


def trained_with(model: Model) -> str | None:
    """Read which scikit-learn made a model, of either SDK; None if it does not say so."""
    named = (model.properties or {}).get("scikit-learn")
    if named is None and getattr(model, "model_framework", None) == "ScikitLearn":
        return model.model_framework_version
    return named


def download_model(model: Model, target_dir: str | os.PathLike[str] = ".") -> Path:
    """Download a model's file, or folder, and verify it before anybody loads it.

    Wraps the tutorial's ``model.download(target_dir='.')`` and ``os.stat``. A pickle is code:
    load only models whose maker you trust.

    Parameters
    ----------
    model : azureml.core.Model
    target_dir : path-like
        Made if need be; a file of the same name in it is replaced, once the new one is verified.

    Returns
    -------
    Path
        For the tutorial's model ``target_dir/sklearn_mnist_model.pkl``.

    Raises
    ------
    ModelError
        The download failed. Or a file is empty, is a pickle that is cut short, differs from the
        ``sha256`` it was registered with, or was saved by another scikit-learn than the one
        installed here.
    """
    check_kind("model", model, "azureml.core.Model", "fetch_model(ws)")
    _check_version(model, trained_with(model))
    try:
        with passing_folder(target_dir) as folder:
            path = Path(Deadline(TRANSFER_TIMEOUT).call(model.download, target_dir=str(folder)))
            _check_files(model, path)
            target = Path(target_dir) / path.name
            if path.is_dir():
                return shutil.copytree(path, target, dirs_exist_ok=True)
            return path.replace(target)
    except ModelError:
        raise
    except Exception as error:  # the SDK raises its own, requests' and azure-storage's
        # Without its cause, which may hold a signed address of the file.
        raise ModelError(f"Model {model.id} could not be downloaded: {reason(error)}") from None


def _check_files(model: Model, path: Path) -> None:
    sha256 = (model.properties or {}).get("sha256") if path.is_file() else None
    for file in filter(Path.is_file, [path, *path.rglob("*")]):
        if problem := find_problem(file, sha256):
            raise ModelError(
                f"{file.name} of model {model.id} is not fit to be loaded, and was not kept: "
                f"{problem}. Download it again; if that does not help, register the model anew."
            )
        _check_version(model, saved_with(file))


def _check_version(model: Model, trained: str | None) -> None:
    if trained is not None and not loads_here(trained):
        here = installed_version("scikit-learn")
        raise ModelError(
            f"Model {model.id} was saved by scikit-learn {trained}, and installed here is {here}: "
            f"it might not load, or answer wrongly. Run 'pip install scikit-learn=={trained}', or "
            f"train and register it anew with {here}."
        )


def find_problem(path: Path, sha256: str | None) -> str | None:
    """Say why a file must not be loaded; None if nothing speaks against it.

    ``sha256`` is what was registered with the model, in hexadecimal.
    """
    content = path.read_bytes()
    if not content:
        return "it is empty"
    if sha256 is not None and sha256_of(path) != sha256:
        return "its sha256 is not the one that it was registered with"
    # Every pickle ends with this opcode; joblib's compressed ones begin otherwise.
    if path.suffix in _SUFFIXES and content.startswith(b"\x80") and not content.endswith(b"."):
        return "it is cut short"
    return None


def saved_with(path: Path) -> str | None:
    """Read which scikit-learn pickled a model, without loading it; None if it does not say so."""
    content = path.read_bytes()
    if found := _SAVED_WITH.search(content):
        end = found.end() + ord(found[1] or found[2])
        return content[found.end() : end].decode("ascii", "replace")
    return None


def sha256_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def loads_here(version: str) -> bool:
    """Whether a model of that scikit-learn loads in the one installed here."""
    return same_minor(version, installed_version("scikit-learn"))


def same_minor(one: str, other: str) -> bool:
    """Whether two releases belong to one minor version, whose pickles are interchangeable."""
    try:
        return Version(one).release[:2] == Version(other).release[:2]
    except InvalidVersion:
        return one == other


@contextmanager
def passing_folder(parent: str | os.PathLike[str]) -> Iterator[Path]:
    """Make a folder in `parent`, itself made if need be, and remove it in the end."""
    Path(parent).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".mnist_deploy-", dir=parent) as folder:
        yield Path(folder)
