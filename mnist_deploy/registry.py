"""Models and environments that are registered in a workspace: fetch, download, verify."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import EnvironmentNotFound, ModelError, WorkspaceError
from .model_file import find_problem, loads_here, saved_with
from .sdk_call import Deadline, reason

if TYPE_CHECKING:
    from azureml.core import Environment, Model, Workspace

MODEL_NAME = "sklearn_mnist"
MODEL_FILE = "sklearn_mnist_model.pkl"
ENVIRONMENT_NAME = "tutorial-env"

ANSWER_LIMIT = 120.0  # seconds for the workspace to answer
TRANSFER_LIMIT = 3600.0  # seconds for a model's files to go up or down
_LISTED = 10  # names in an error message


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

    model = find_model(ws, name, version)
    if model is not None:
        return model
    with asking(ws, "list its models"):
        models = Deadline(ANSWER_LIMIT).call(Model.list, ws, latest=version is None)
    same_name = [each for each in models if each.name == name]
    raise ModelError(
        f"{'Model' if version is None else f'Version {version} of model'} {name!r} is not "
        f"registered in workspace {ws.name!r}. {_listed(each.id for each in same_name or models)} "
        "prepare_workspace(ws) registers the tutorial's."
    )


def find_model(ws: Workspace, name: str, version: int | None = None) -> Model | None:
    """Fetch a registered model; None if it is not registered."""
    from azureml.core import Model

    with asking(ws, f"fetch the model {name!r}"):
        try:
            return Deadline(ANSWER_LIMIT).call(Model, ws, name, version=version)
        except Exception as error:
            if "ModelNotFound" not in str(error):
                raise
            return None


def trained_with(model: Model) -> str | None:
    """Read which scikit-learn made a registered model; None if it does not say so."""
    named = (model.properties or {}).get("scikit-learn")
    if named is None and model.model_framework == "ScikitLearn":
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
    _check_version(model, trained_with(model))
    try:
        with passing_folder(target_dir) as folder:
            path = Path(Deadline(TRANSFER_LIMIT).call(model.download, target_dir=str(folder)))
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
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    sha256 = (model.properties or {}).get("sha256") if files == [path] else None
    for file in files:
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


def fetch_environment(
    ws: Workspace, name: str = ENVIRONMENT_NAME, version: str | None = None
) -> Environment:
    """Fetch a registered environment, by default the newest version.

    Wraps the tutorial's ``Environment.get``, which asked for version 1 and so missed any later one.

    Parameters
    ----------
    ws : azureml.core.Workspace
    name : str
    version : str, optional

    Returns
    -------
    azureml.core.Environment

    Raises
    ------
    EnvironmentNotFound
        It is not registered; says which are.
    WorkspaceError
        The workspace does not answer.
    """
    from azureml.core import Environment

    with asking(ws, f"fetch the environment {name!r}"):
        try:
            return Deadline(ANSWER_LIMIT).call(Environment.get, ws, name, version=version)
        except Exception as error:  # the SDK raises a bare one here
            if "Code: 404" not in str(error):
                raise
        known = Deadline(ANSWER_LIMIT).call(Environment.list, ws).values()
    own = (f"{each.name}:{each.version}" for each in known if not each.name.startswith("AzureML-"))
    raise EnvironmentNotFound(
        f"{'Environment' if version is None else f'Version {version} of environment'} {name!r} is "
        f"not registered in workspace {ws.name!r}. {_listed(own)} "
        "prepare_workspace(ws) registers the tutorial's."
    )


@contextmanager
def asking(ws: Workspace, what: str) -> Iterator[None]:
    """Say what was asked of the workspace where that fails."""
    try:
        yield
    except Exception as error:
        raise WorkspaceError(f"Workspace {ws.name!r} could not {what}: {reason(error)}") from error


def _listed(names: Iterable[str]) -> str:
    """Name what is registered, but not too much of it."""
    ordered = sorted(names)
    more = f" and {len(ordered) - _LISTED} more" if len(ordered) > _LISTED else ""
    return f"Registered are: {', '.join(ordered[:_LISTED]) or 'none'}{more}."


@contextmanager
def passing_folder(parent: str | os.PathLike[str]) -> Iterator[Path]:
    """Make a folder in `parent`, itself made if need be, and remove it in the end."""
    Path(parent).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".mnist_deploy-", dir=parent) as folder:
        yield Path(folder)
