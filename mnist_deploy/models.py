"""Registered models: fetch one, download it, and verify its file before it is loaded."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import lzma
import os
import re
import shutil
import tempfile
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
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

# scikit-learn writes its version into each estimator. In a pickle: the name of the attribute, an
# opcode that memoizes it, an opcode that begins a string, and the length of the string.
_SAVED_WITH = re.compile(rb"_sklearn_version(?:\x94|q.|r.{4})(?:\x8c(.)|X(.)\0{3})", re.S)
_SUFFIXES = {".pkl", ".pickle", ".joblib"}
_DECOMPRESSORS: dict[bytes, Callable[[bytes], bytes]] = {  # by the first bytes, as joblib does
    b"\x78": zlib.decompress,
    b"\x1f\x8b": gzip.decompress,
    b"BZ": bz2.decompress,
    b"\x5d\x00": lzma.decompress,
    b"\xfd7zXZ": lzma.decompress,
}
_DECOMPRESSION_ERRORS = (EOFError, OSError, ValueError, lzma.LZMAError, zlib.error)


def fetch_model(ws: Workspace, name: str = MODEL_NAME, version: int | None = None) -> Model:
    """Fetch a registered model, by default the newest version.

    Wraps the tutorial's ``Model(ws, 'sklearn_mnist')``.

    Parameters
    ----------
    ws : azureml.core.Workspace
    name : str
    version : int, optional
        By default the newest.

    Returns
    -------
    azureml.core.Model

    Raises
    ------
    ModelError
        The model is not registered; the message lists the registered models, or its versions.
    WorkspaceError
        The workspace does not respond.
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
            requested = None if version is None else str(version)  # the SDK reads 0 as "newest"
            return Deadline().call(Model, ws, name, version=requested)
        except Exception as error:
            if "ModelNotFound" not in str(error):
                raise
            return None


def trained_with(model: Model) -> str | None:
    """The version of scikit-learn that is registered with a model of SDK v1 or v2, or None."""
    version = (model.properties or {}).get("scikit-learn")
    if version is None and getattr(model, "model_framework", None) == "ScikitLearn":
        return model.model_framework_version
    return version


def download_model(model: Model, target_dir: str | os.PathLike[str] = ".") -> Path:
    """Download the file or folder of a model, and verify it before it is loaded.

    Wraps the tutorial's ``model.download(target_dir='.')`` and ``os.stat``. Loading a pickle runs
    code: load only models from a trusted source.

    Parameters
    ----------
    model : azureml.core.Model
    target_dir : path-like
        The folder, which is created if it does not exist. A file of the same name in the folder is
        replaced after the downloaded file has been verified.

    Returns
    -------
    Path
        The file or folder; for the tutorial's model ``target_dir/sklearn_mnist_model.pkl``.

    Raises
    ------
    ModelError
        The download failed. Or a file is empty, is a truncated pickle, differs from the ``sha256``
        of the registered model, or was saved by another minor version of scikit-learn than the
        installed one, as far as the model or its pickle states the version.

    Warns
    -----
    UserWarning
        The model was saved by another patch release of scikit-learn.
    """
    check_kind("model", model, "azureml.core.Model", "fetch_model(ws)")
    _check_version(model, trained_with(model))
    try:
        with temporary_folder(target_dir) as folder:
            path = Path(Deadline(TRANSFER_TIMEOUT).call(model.download, target_dir=str(folder)))
            _check_files(model, path)
            target = Path(target_dir) / path.name
            if path.is_dir():
                return shutil.copytree(path, target, dirs_exist_ok=True)
            return path.replace(target)
    except ModelError:
        raise
    except Exception as error:  # the SDK raises its own, requests' and azure-storage's
        # Without the cause, which may hold a signed URL of the file.
        raise ModelError(f"Model {model.id} could not be downloaded: {reason(error)}") from None


def _check_files(model: Model, path: Path) -> None:
    sha256 = (model.properties or {}).get("sha256") if path.is_file() else None
    for file in filter(Path.is_file, [path, *path.rglob("*")]):
        if problem := find_problem(file, sha256):
            raise ModelError(
                f"{file.name} of model {model.id} must not be loaded, and was deleted: {problem}. "
                "Download it again; if that does not help, register the model again."
            )
        _check_version(model, saved_with(file))


def _check_version(model: Model, trained: str | None) -> None:
    installed = installed_version("scikit-learn")
    if trained is None or trained == installed:
        return
    versions = f"Model {model.id} was saved by scikit-learn {trained}; installed is {installed}."
    if loads_here(trained):
        warnings.warn(versions, UserWarning, stacklevel=4)
        return
    raise ModelError(
        f"{versions} It may fail to load, or predict wrongly. Run 'pip install "
        f"scikit-learn=={trained}', or train the model with {installed} and register it again."
    )


def find_problem(path: Path, sha256: str | None) -> str | None:
    """Return the reason not to load a file, or None.

    ``sha256`` is the registered hash in hexadecimal, if the model has one.
    """
    content = path.read_bytes()
    if not content:
        return "it is empty"
    if sha256 is not None and sha256_of(path) != sha256:
        return "its sha256 differs from the registered one"
    if path.suffix not in _SUFFIXES:
        return None
    try:
        content = _decompress(content)
    except _DECOMPRESSION_ERRORS:
        return "it is truncated or damaged"
    # Each pickle ends with the opcode STOP.
    if content.startswith(b"\x80") and not content.endswith(b"."):
        return "it is truncated"
    return None


def saved_with(path: Path) -> str | None:
    """Return the version of scikit-learn in a pickle without loading it; None if there is none."""
    content = path.read_bytes()
    if path.suffix in _SUFFIXES:
        with suppress(*_DECOMPRESSION_ERRORS):
            content = _decompress(content)
    if found := _SAVED_WITH.search(content):
        end = found.end() + ord(found[1] or found[2])
        return content[found.end() : end].decode("ascii", "replace")
    return None


def _decompress(content: bytes) -> bytes:
    """Decompress a file of ``joblib.dump(..., compress=...)``; return other content unchanged."""
    for prefix, decompress in _DECOMPRESSORS.items():
        if content.startswith(prefix):
            return decompress(content)
    return content


def sha256_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def loads_here(version: str) -> bool:
    """Whether the installed scikit-learn loads a model that another version saved."""
    return same_minor(version, installed_version("scikit-learn"))


def same_minor(one: str, other: str) -> bool:
    """Whether two releases belong to one minor version, and load each other's pickles."""
    try:
        return Version(one).release[:2] == Version(other).release[:2]
    except InvalidVersion:
        return one == other


@contextmanager
def temporary_folder(parent: str | os.PathLike[str]) -> Iterator[Path]:
    """Create a folder in `parent`, which is created if missing; remove the folder at the end."""
    Path(parent).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".mnist_deploy-", dir=parent) as folder:
        yield Path(folder)
