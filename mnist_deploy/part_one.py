"""Part one of the tutorial: fit its model, save it, register model and environment.

``python -m mnist_deploy.part_one DATA_DIR`` does that in the local workspace, and
``python -m mnist_deploy.local exec`` runs it for notebooks that do not call these helpers.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from importlib.metadata import version as installed_version
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from . import environments, models
from .data import download_mnist, load_test_data, load_training_data
from .data.files import find_files
from .errors import EnvironmentNotFound, MnistDeployError
from .sdk import TRANSFER_TIMEOUT, Deadline, workspace_call

if TYPE_CHECKING:
    from azureml.core import Model, Workspace
    from sklearn.linear_model import LogisticRegression


REGULARIZATION = 0.8  # of the tutorial


def prepare_workspace(
    ws: Workspace, data_dir: str | os.PathLike[str] = "data", regularization: float = REGULARIZATION
) -> Model:
    """Register the model and the environment of part one, unless they are registered.

    A model that this function registered is trained again if the folder holds other data than
    before (except the sample), or if another scikit-learn is installed. The environment pins the
    scikit-learn of such a model.

    Parameters
    ----------
    ws : azureml.core.Workspace
    data_dir : path-like
        The folder of the MNIST files, which are downloaded to it if a model is trained.
    regularization : float
        The inverse of scikit-learn's C. Another value does not cause a registered model to be
        trained again; a line is printed.

    Returns
    -------
    azureml.core.Model
        ``sklearn_mnist``, with the properties ``scikit-learn``, ``accuracy``, ``data``,
        ``regularization`` and ``sha256`` if this function trained it. The environment is
        ``tutorial-env``.

    Raises
    ------
    DataError
        The files under `data_dir` are damaged, or missing although a model is to be trained.
    WorkspaceError
        The workspace does not respond, or rejects the registration.
    """
    model = models.find_model(ws, models.MODEL_NAME)
    if model is None or (_was_trained_here(model) and not _is_current(model, data_dir)):
        model = _train_and_register(ws, data_dir, regularization)
    else:
        _print_ignored_regularization(model, regularization)
    _prepare_environment(ws, model)
    return model


def _print_ignored_regularization(model: Model, regularization: float) -> None:
    used = (model.properties or {}).get("regularization")
    if regularization != (REGULARIZATION if used is None else float(used)):
        print(
            f"Kept the registered model {model.id} (regularization {used or 'unknown'}): "
            f"regularization={regularization:g} is used only if a model is trained."
        )


def _was_trained_here(model: Model) -> bool:
    return {"data", "scikit-learn", "sha256"} <= (model.properties or {}).keys()


def _is_current(model: Model, data_dir: str | os.PathLike[str]) -> bool:
    """Whether the folder has no better data, and the installed scikit-learn loads the model."""
    files, trained_on = find_files(data_dir), model.properties["data"].split(":")[0]
    has_better = files is not None and files.kind not in ("sample", trained_on)
    return not has_better and models.loads_here(model.properties["scikit-learn"])


def _train_and_register(
    ws: Workspace, data_dir: str | os.PathLike[str], regularization: float
) -> Model:
    import joblib
    from azureml.core import Model

    files = download_mnist(data_dir)
    images, labels = load_training_data(data_dir)
    print(f"Training {models.MODEL_NAME} on {len(labels):,} images.")
    classifier = fit_model(images, labels, regularization)
    accuracy = classifier.score(*load_test_data(data_dir))
    # The SDK rejects files outside of the working directory.
    with workspace_call(ws, "register the model"), models.temporary_folder(".") as folder:
        path = folder / models.MODEL_FILE
        joblib.dump(classifier, path)
        model = Deadline(TRANSFER_TIMEOUT).call(
            Model.register,
            ws,
            model_path=os.path.relpath(path),
            model_name=models.MODEL_NAME,
            tags={"data": "MNIST", "method": "sklearn"},
            description="One-vs-rest logistic regression on MNIST",
            properties={
                "scikit-learn": installed_version("scikit-learn"),
                "accuracy": f"{accuracy:.4f}",
                "data": f"{files.kind}: {len(labels)} images",
                "regularization": f"{regularization:g}",
                "sha256": models.sha256_of(path),
            },
        )
    print(f"Registered model {model.id}, accuracy {accuracy:.4f} on the test images.")
    return model


def _prepare_environment(ws: Workspace, model: Model) -> None:
    trained = models.trained_with(model)
    with suppress(EnvironmentNotFound):
        pinned = environments.pinned_version(environments.fetch_environment(ws), "scikit-learn")
        if pinned == trained or not _was_trained_here(model):
            return
    environment = environments.build_scoring_environment(scikit_learn=trained)
    with workspace_call(ws, "register the environment"):
        environment = Deadline().call(environment.register, ws)
    print(f"Registered environment {environment.name}:{environment.version}.")


def fit_model(X: ArrayLike, y: ArrayLike, regularization: float = 0.8) -> LogisticRegression:
    """Fit the tutorial's model: one-vs-rest logistic regression with liblinear.

    One binary fit for each class, joined to one plain `LogisticRegression`, as scikit-learn did
    before 1.8; its labels are those of ``OneVsRestClassifier`` with the same estimator. 60,000
    images of MNIST took 15 to 18 seconds on two cores.

    X has the shape (n, features), y (n,). Since scikit-learn 1.8 the ``fit`` of the returned
    model rejects more than two classes, and its ``predict_proba`` is a softmax of the scores;
    before, it was the probability of each class, scaled to a sum of 1. A ValueError reports
    arrays that do not match, or a single class.
    """
    from joblib import Parallel, delayed
    from scipy.sparse import csr_matrix
    from sklearn.base import clone
    from sklearn.linear_model import LogisticRegression
    from sklearn.utils import check_X_y
    from tqdm.auto import tqdm

    images, labels = check_X_y(X, y, accept_sparse="csr", dtype=np.float64)
    classes = np.unique(labels)
    if len(classes) < 2:
        raise ValueError(f"y has one class only, {classes[0]}; a classifier needs two or more.")
    if not regularization > 0:
        raise ValueError(f"regularization is {regularization}, expected more than 0.")
    model = LogisticRegression(C=1 / regularization, solver="liblinear", random_state=42)
    # Rows sorted by label, and sparse: a third of the time, and the published accuracy.
    order = np.argsort(labels, kind="stable")
    rows, labels = csr_matrix(images)[order], labels[order]
    targets = classes[1:] if len(classes) == 2 else classes
    # Two in parallel: each copies the training set, 300 MB for MNIST.
    fits = Parallel(n_jobs=min(2, len(targets)), prefer="threads", return_as="generator")(
        delayed(clone(model).fit)(rows, labels == target) for target in targets
    )
    fits = list(tqdm(fits, "training", len(targets), unit="class", leave=False, delay=2))
    model.classes_ = classes
    model.coef_ = np.vstack([fit.coef_ for fit in fits])
    model.intercept_ = np.concatenate([fit.intercept_ for fit in fits])
    model.n_iter_ = np.concatenate([fit.n_iter_ for fit in fits])
    model.n_features_in_ = rows.shape[1]
    return model


def main(data_dir: str) -> None:
    """Register the tutorial's model and environment in the local workspace, if they are missing."""
    from .workspace import connect_workspace

    try:
        prepare_workspace(connect_workspace(local=True), data_dir)
    except MnistDeployError as error:
        raise SystemExit(f"{error}") from None


if __name__ == "__main__":
    main(sys.argv[1])
