"""Models and environments in a workspace: prepare, fetch, download."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import TYPE_CHECKING

from packaging.version import Version

from .errors import EnvironmentNotFound, ModelError

if TYPE_CHECKING:
    from azureml.core import Environment, Model, Workspace

    from .data import MnistFiles

MODEL_NAME = "sklearn_mnist"
MODEL_FILE = "sklearn_mnist_model.pkl"
ENVIRONMENT_NAME = "tutorial-env"


def prepare_workspace(
    ws: Workspace, data_dir: str | os.PathLike[str] = "data", regularization: float = 0.8
) -> Model:
    """Make sure of what part one of the tutorial leaves behind: its model and its environment.

    Wraps part one in brief. What is registered already is left as it is; a model that this
    function registered earlier gets a new version where it was trained on the sample and the
    genuine database is at hand now, or with another scikit-learn than the one installed.

    Parameters
    ----------
    ws : azureml.core.Workspace
    data_dir : path-like
        Where MNIST lies or is downloaded to, if it must be trained.
    regularization : float
        The inverse of scikit-learn's C.

    Returns
    -------
    azureml.core.Model
        ``sklearn_mnist``, with the properties ``scikit-learn``, ``accuracy``, ``data`` and
        ``sha256`` if it was trained here. The environment is ``tutorial-env``.

    Raises
    ------
    DataError
        It must be trained and there is no data.
    """
    from .data import download_mnist
    from .scoring_environment import build_scoring_environment, pinned_version

    model = _find_model(ws, MODEL_NAME)
    if model is None or _was_trained_here(model):
        files = download_mnist(data_dir)
        if model is None or not _is_current(model, files):
            model = _train_and_register(ws, files, data_dir, regularization)
    wanted = model.properties.get("scikit-learn")
    try:
        environment = fetch_environment(ws)
        agrees = wanted is None or pinned_version(environment, "scikit-learn") == wanted
    except EnvironmentNotFound:
        agrees = False
    if not agrees:
        environment = build_scoring_environment(ENVIRONMENT_NAME).register(ws)
        print(f"Registered environment {environment.name}:{environment.version}.")
    return model


def _was_trained_here(model: Model) -> bool:
    return {"data", "scikit-learn", "sha256"} <= (model.properties or {}).keys()


def _is_current(model: Model, files: MnistFiles) -> bool:
    """Whether nothing better than this registered model can be trained now."""
    trained_on = model.properties["data"].split(":")[0]
    same_data = trained_on == files.kind or files.is_sample
    return same_data and _fits(model.properties["scikit-learn"])


def _train_and_register(
    ws: Workspace, files: MnistFiles, data_dir: str | os.PathLike[str], regularization: float
) -> Model:
    from azureml.core import Model

    from .data import load_test_data, load_training_data
    from .training import fit_model, save_model

    images, labels = load_training_data(data_dir)
    print(f"Training {MODEL_NAME} on {len(labels):,} images.")
    classifier = fit_model(images, labels, regularization)
    accuracy = classifier.score(*load_test_data(data_dir))
    with _folder_here() as folder:
        path = save_model(classifier, folder / MODEL_FILE)
        model = Model.register(
            ws,
            model_path=os.path.relpath(path),
            model_name=MODEL_NAME,
            tags={"data": "MNIST", "method": "sklearn"},
            description="One-vs-rest logistic regression on MNIST",
            properties={
                "scikit-learn": installed_version("scikit-learn"),
                "accuracy": f"{accuracy:.4f}",
                "data": f"{files.kind}: {len(labels)} images",
                "sha256": _sha256(path),
            },
        )
    print(f"Registered model {model.id}, accuracy {accuracy:.4f} on the test images.")
    return model


@contextmanager
def _folder_here() -> Iterator[Path]:
    """A passing folder in the working directory: Model.register takes files from nowhere else."""
    with tempfile.TemporaryDirectory(prefix=".mnist_deploy-", dir=".") as folder:
        yield Path(folder)


def fetch_model(ws: Workspace, name: str = MODEL_NAME, version: int | None = None) -> Model:
    """Fetch a registered model, by default the newest version.

    Wraps the tutorial's ``Model(ws, 'sklearn_mnist')``.

    Raises
    ------
    ModelError
        It is not registered; says which models are.
    """
    model = _find_model(ws, name, version)
    if model is None:
        from azureml.core import Model

        known = sorted(each.id for each in Model.list(ws))
        which = f"Version {version} of model" if version else "Model"
        raise ModelError(
            f"{which} {name!r} is not registered in workspace {ws.name!r}. "
            f"Registered are: {', '.join(known) or 'none'}. "
            "prepare_workspace(ws) registers the tutorial's."
        )
    return model


def _find_model(ws: Workspace, name: str, version: int | None = None) -> Model | None:
    from azureml.core import Model
    from azureml.exceptions import WebserviceException

    try:
        return Model(ws, name, version=version)
    except WebserviceException as error:
        if "ModelNotFound" in str(error):
            return None
        raise ModelError(f"Model {name!r} could not be fetched: {error.message}") from error


def download_model(model: Model, target_dir: str | os.PathLike[str] = ".") -> Path:
    """Download a model's file, or folder, and verify it before anybody loads it.

    Wraps the tutorial's ``model.download(target_dir='.')`` and ``os.stat``. A pickle is code:
    load only models whose maker you trust.

    Parameters
    ----------
    model : azureml.core.Model
    target_dir : path-like
        Made if need be; a file of the same name in it is replaced.

    Returns
    -------
    Path
        For the tutorial's model ``target_dir/sklearn_mnist_model.pkl``.

    Raises
    ------
    ModelError
        The download failed or is empty, differs from the ``sha256`` it was registered with,
        or was saved by another scikit-learn than the one installed here.
    """
    saved_with = (model.properties or {}).get("scikit-learn")
    if saved_with is not None and not _fits(saved_with):
        raise ModelError(
            f"Model {model.id} was saved by scikit-learn {saved_with}, and here is "
            f"{installed_version('scikit-learn')}: it might load and answer wrongly. Install "
            f"scikit-learn=={saved_with}, or let prepare_workspace(ws) train a new version."
        )
    try:
        path = Path(model.download(target_dir=str(target_dir), exist_ok=True))
    except Exception as error:  # the SDK raises its own, requests' and azure-storage's
        raise ModelError(f"Model {model.id} could not be downloaded: {error}") from error
    expected = (model.properties or {}).get("sha256")
    if not path.exists() or (path.is_file() and path.stat().st_size == 0):
        raise ModelError(f"Model {model.id} has no content. Register it anew.")
    if expected is not None and path.is_file() and _sha256(path) != expected:
        path.unlink()
        raise ModelError(
            f"{path} is not the file that was registered as {model.id}: its sha256 differs. It was "
            "removed. Download it again; if that does not help, register the model anew."
        )
    return path


def fetch_environment(
    ws: Workspace, name: str = ENVIRONMENT_NAME, version: str | None = None
) -> Environment:
    """Fetch a registered environment, by default the newest version.

    Wraps the tutorial's ``Environment.get``, which asked for version 1 and so missed any later one.

    Raises
    ------
    EnvironmentNotFound
        It is not registered; says which are.
    """
    from azureml.core import Environment

    try:
        return Environment.get(workspace=ws, name=name, version=version)
    except Exception as error:  # the SDK raises a bare Exception here
        if "404" not in str(error):
            raise
        known = ", ".join(sorted(Environment.list(ws))) or "none"
        which = f"Version {version} of environment" if version else "Environment"
        raise EnvironmentNotFound(
            f"{which} {name!r} is not registered in workspace {ws.name!r}. Registered are: "
            f"{known}. prepare_workspace(ws) registers the tutorial's."
        ) from error


def _fits(saved_with: str) -> bool:
    """Whether a pickle of that scikit-learn loads here: releases of one minor version agree."""
    return Version(saved_with).release[:2] == Version(installed_version("scikit-learn")).release[:2]


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        digest = hashlib.sha256()
        for chunk in iter(lambda: file.read(1 << 20), b""):
            digest.update(chunk)
    return digest.hexdigest()
