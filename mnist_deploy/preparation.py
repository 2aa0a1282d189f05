"""Make sure that a workspace holds what part one of the tutorial leaves behind."""

from __future__ import annotations

import os
from importlib.metadata import version as installed_version
from typing import TYPE_CHECKING

from .errors import EnvironmentNotFound
from .model_file import loads_here, sha256_of
from .registry import (
    ANSWER_LIMIT,
    ENVIRONMENT_NAME,
    MODEL_FILE,
    MODEL_NAME,
    TRANSFER_LIMIT,
    asking,
    fetch_environment,
    find_model,
    passing_folder,
    trained_with,
)
from .scoring_environment import build_scoring_environment, pinned_version
from .sdk_call import Deadline

if TYPE_CHECKING:
    from azureml.core import Model, Workspace

    from .data import MnistFiles


def prepare_workspace(
    ws: Workspace, data_dir: str | os.PathLike[str] = "data", regularization: float = 0.8
) -> Model:
    """Make sure of what part one of the tutorial leaves behind: its model and its environment.

    Wraps part one in brief. What is registered already is left as it is, with one exception: a
    model that this function trained gets a new version where other data are at hand now (the
    sample never takes the place of anything), or where scikit-learn was changed since. The
    environment always pins the scikit-learn of such a model.

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
    WorkspaceError
        The workspace does not answer, or does not take what is registered.
    """
    from .data import download_mnist

    model = find_model(ws, MODEL_NAME)
    if model is None or _was_trained_here(model):
        files = download_mnist(data_dir)
        if model is None or not _is_current(model, files):
            model = _train_and_register(ws, files, data_dir, regularization)
    _prepare_environment(ws, model)
    return model


def _was_trained_here(model: Model) -> bool:
    return {"data", "scikit-learn", "sha256"} <= (model.properties or {}).keys()


def _is_current(model: Model, files: MnistFiles) -> bool:
    """Whether nothing better than this registered model can be trained now."""
    same_data = files.kind == model.properties["data"].split(":")[0]
    return (same_data or files.is_sample) and loads_here(model.properties["scikit-learn"])


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
    # The SDK registers no file from outside the working directory.
    with asking(ws, "register the model"), passing_folder(".") as folder:
        path = save_model(classifier, folder / MODEL_FILE)
        model = Deadline(TRANSFER_LIMIT).call(
            Model.register,
            ws,
            model_path=os.path.relpath(path),
            model_name=MODEL_NAME,
            tags={"data": "MNIST", "method": "sklearn"},
            description="One-vs-rest logistic regression on MNIST",
            properties={
                "scikit-learn": installed_version("scikit-learn"),
                "accuracy": f"{accuracy:.4f}",
                "data": f"{files.kind}: {len(labels)} images",
                "sha256": sha256_of(path),
            },
        )
    print(f"Registered model {model.id}, accuracy {accuracy:.4f} on the test images.")
    return model


def _prepare_environment(ws: Workspace, model: Model) -> None:
    trained = trained_with(model)
    try:
        environment = fetch_environment(ws)
        pinned = pinned_version(environment, "scikit-learn")
        if pinned == trained or not _was_trained_here(model):
            return
    except EnvironmentNotFound:
        pass
    environment = build_scoring_environment(ENVIRONMENT_NAME, scikit_learn=trained)
    with asking(ws, "register the environment"):
        environment = Deadline(ANSWER_LIMIT).call(environment.register, ws)
    print(f"Registered environment {environment.name}:{environment.version}.")
