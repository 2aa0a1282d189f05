"""`prepare_workspace` and `fit_model`: what is registered when, and the model's figures."""

from __future__ import annotations

import os
from importlib.metadata import version
from pathlib import Path

import joblib
import numpy as np
import pytest
from azureml.core import Environment, Model
from published import PUBLISHED
from scipy.sparse import csr_matrix
from sklearn.datasets import load_wine
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import confusion_matrix
from sklearn.multiclass import OneVsRestClassifier

from mnist_deploy import data, fetch_environment, load_test_data, part_one, prepare_workspace
from mnist_deploy.data.files import EDITIONS, MnistFiles, write_files
from mnist_deploy.environments import pinned_version
from mnist_deploy.errors import DataError, WorkspaceError
from mnist_deploy.models import sha256_of
from mnist_deploy.part_one import _is_current, fit_model

HERE = version("scikit-learn")
PINNED = {"scikit-learn": HERE, "numpy": np.__version__, "joblib": joblib.__version__}
TRAINED = {"data": "sample: 4000 images", "scikit-learn": HERE, "sha256": "0", "accuracy": "0.9"}


@pytest.fixture(autouse=True)
def _no_network(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def fail():
        raise DataError("there is no network")

    monkeypatch.setattr(data, "fetch_from_azure", fail)


@pytest.fixture
def empty_ws(ws):
    """The workspace without a registered model of the tutorial."""
    for model in Model.list(ws, name="sklearn_mnist"):
        model.delete()
    return ws


@pytest.fixture(scope="module")
def own_dir(tmp_path_factory) -> Path:
    """A few images of three classes that are easy to separate."""
    folder = tmp_path_factory.mktemp("own")
    labels = np.arange(60, dtype=np.uint8) % 3
    images = np.zeros((60, 28, 28), np.uint8)
    for image, label in zip(images, labels, strict=True):
        image[label * 9 : label * 9 + 9] = 255
    write_files(folder, dict(zip(EDITIONS[0], [images, labels] * 2, strict=True)))
    return folder


def register(ws, tmp_path, **properties) -> Model:
    """Register a model with the properties that an earlier run gave it."""
    joblib.dump(LogisticRegression(), tmp_path / "sklearn_mnist_model.pkl")
    return Model.register(ws, "sklearn_mnist_model.pkl", "sklearn_mnist", properties=properties)


def versions(ws) -> list[int]:
    return sorted(model.version for model in Model.list(ws, name="sklearn_mnist"))


def test_model_and_environment_are_registered_once(empty_ws, own_dir, capsys, monkeypatch):
    model = prepare_workspace(empty_ws, own_dir)
    first = capsys.readouterr().out
    assert f"Registered model {model.id}" in first
    assert os.listdir() == []  # no file remains in the working directory
    assert (model.name, model.tags) == ("sklearn_mnist", {"data": "MNIST", "method": "sklearn"})
    path = model.download("kept")
    assert model.properties == {
        "data": "own: 60 images",
        "scikit-learn": HERE,
        "regularization": "0.8",
        "sha256": sha256_of(Path(path)),
        "accuracy": f"{joblib.load(path).score(*load_test_data(own_dir)):.4f}",
    }
    environment = fetch_environment(empty_ws)
    pins = {package: pinned_version(environment, package) for package in PINNED}
    assert pins == PINNED

    monkeypatch.setattr(data, "fetch_from_azure", lambda: pytest.fail("a request was sent"))
    again = prepare_workspace(empty_ws, own_dir)
    assert prepare_workspace(empty_ws, "no-such-folder").id == again.id == model.id
    assert capsys.readouterr() == ("", "")
    assert versions(empty_ws) == [model.version]
    assert fetch_environment(empty_ws).version == environment.version


@pytest.mark.parametrize(("recorded", "named"), [({"regularization": "0.8"}, "0.8"), ({}, "unk")])
def test_another_regularization_keeps_the_registered_model(
    empty_ws, sample_dir, tmp_path, capsys, recorded, named
):
    old = register(empty_ws, tmp_path, **TRAINED | recorded)
    assert prepare_workspace(empty_ws, sample_dir, regularization=0.05).id == old.id
    assert f"Kept the registered model {old.id} (regularization {named}" in capsys.readouterr().out
    prepare_workspace(empty_ws, sample_dir)
    assert "Kept" not in capsys.readouterr().out


@pytest.mark.parametrize(
    "properties",
    [
        pytest.param(TRAINED, id="better data"),
        pytest.param(
            TRAINED | {"data": "own: 60 images", "scikit-learn": "0.22.1"},
            id="another scikit-learn",
        ),
    ],
)
def test_model_is_trained_again_for_a_reason(empty_ws, own_dir, tmp_path, properties):
    old = register(empty_ws, tmp_path, **properties)
    model = prepare_workspace(empty_ws, own_dir, regularization=5)
    assert versions(empty_ws) == [old.version, model.version]
    assert model.properties | {"data": "own: 60 images", "scikit-learn": HERE} == model.properties
    assert joblib.load(model.download("kept")).C == 1 / 5
    assert prepare_workspace(empty_ws, own_dir).id == model.id


def test_sample_does_not_replace_other_data(empty_ws, sample_dir, tmp_path):
    old = register(empty_ws, tmp_path, **TRAINED | {"data": "genuine: 60000 images"})
    assert prepare_workspace(empty_ws, sample_dir).id == old.id


@pytest.mark.parametrize(
    ("trained_on", "present", "current"),
    [
        ("sample", None, True),
        ("sample", "sample", True),
        ("sample", "genuine", False),
        ("genuine", "sample", True),
        ("genuine", "genuine", True),
        ("genuine", "own", False),
        ("own", "sample", True),
        ("own", "genuine", False),
    ],
)
def test_current_model_depends_on_the_data(monkeypatch, trained_on, present, current):
    model = Model(workspace=None)
    model.properties = TRAINED | {"data": f"{trained_on}: 9 images"}
    files = present and MnistFiles(*[Path("f")] * 4, source="", kind=present)
    monkeypatch.setattr(part_one, "find_files", lambda folder: files)
    assert _is_current(model, "data") is current


def test_patch_release_keeps_the_model_and_pins_its_version(empty_ws, own_dir, tmp_path):
    """With a model of 1.9.0 and 1.9.1 installed, the environment pins 1.9.0."""
    almost = ".".join([*HERE.split(".")[:2], "99"])
    old = register(
        empty_ws, tmp_path, **TRAINED | {"data": "own: 60 images", "scikit-learn": almost}
    )
    assert prepare_workspace(empty_ws, own_dir).id == old.id
    environment = fetch_environment(empty_ws)
    assert pinned_version(environment, "scikit-learn") == almost
    prepare_workspace(empty_ws, own_dir)
    assert fetch_environment(empty_ws).version == environment.version


def test_model_of_part_one_on_azure_is_not_replaced(empty_ws, tmp_path, monkeypatch):
    """It has no properties of this function: neither data nor environment are read or changed."""
    environment = Environment("tutorial-env")
    environment.python.conda_dependencies.add_pip_package("scikit-learn==0.22.1")
    registered = environment.register(empty_ws)
    old = register(empty_ws, tmp_path)
    monkeypatch.setattr(part_one, "find_files", lambda folder: pytest.fail("data was read"))
    assert prepare_workspace(empty_ws, tmp_path).id == old.id
    found = fetch_environment(empty_ws)
    assert (found.version, pinned_version(found, "scikit-learn")) == (registered.version, "0.22.1")


def test_damaged_data_registers_no_model(empty_ws, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train-images-idx3-ubyte.gz").write_bytes(b"damaged")
    with pytest.raises(DataError):
        prepare_workspace(empty_ws, tmp_path / "data")
    assert versions(empty_ws) == []


def test_rejected_registration_is_reported(empty_ws, own_dir, monkeypatch):
    def fail(*_, **__):
        raise ConnectionError("the disk is full")

    monkeypatch.setattr(Model, "register", fail)
    with pytest.raises(WorkspaceError, match=r"'local' could not register the model: the disk is"):
        prepare_workspace(empty_ws, own_dir)
    assert os.listdir() == []


# --- training ---


@pytest.fixture(scope="module")
def sample_model(sample_data):
    X_train, y_train, _, _ = sample_data
    return fit_model(X_train, y_train)


def test_model_is_the_tutorials(sample_model, sample_data):
    _, _, X_test, y_test = sample_data
    assert type(sample_model) is LogisticRegression
    assert sample_model.coef_.shape == (10, 784)
    assert sample_model.intercept_.shape == (10,)
    assert sample_model.classes_.tolist() == list(range(10))
    assert sample_model.get_params()["C"] == 1 / 0.8
    assert 0.89 < sample_model.score(X_test, y_test) < 0.91
    assert "LogisticRegression" in sample_model._repr_html_()


@pytest.mark.parametrize("n_classes", [2, 3, 10])
def test_labels_and_scores_are_those_of_one_vs_rest(sample_data, n_classes):
    X_train, y_train, X_test, _ = sample_data
    few = np.flatnonzero(y_train < n_classes)[:600]
    model = fit_model(X_train[few], y_train[few], regularization=2)
    expected = OneVsRestClassifier(
        LogisticRegression(C=0.5, solver="liblinear", random_state=42)
    ).fit(X_train[few], y_train[few])
    assert (model.predict(X_test) == expected.predict(X_test)).all()
    np.testing.assert_allclose(
        model.decision_function(X_test), expected.decision_function(X_test), atol=0.05
    )


def test_probabilities_are_ordered_as_the_scores(sample_model, sample_data):
    _, _, X_test, y_test = sample_data
    probabilities = sample_model.predict_proba(X_test)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    assert (probabilities.argmax(axis=1) == sample_model.predict(X_test)).all()
    confidence, right = probabilities.max(axis=1), sample_model.predict(X_test) == y_test
    assert confidence[right].mean() > confidence[~right].mean() + 0.1


def test_model_of_two_classes_is_binary(sample_data):
    X_train, y_train, _, _ = sample_data
    pair = (y_train == 3) | (y_train == 8)
    X, y = X_train[pair], y_train[pair]
    before = X.copy(), y.copy()
    model = fit_model(X, y)
    np.testing.assert_equal((X, y), before)
    assert model.coef_.shape == (1, 784)
    assert model.classes_.tolist() == [3, 8]
    assert model.score(X, y) > 0.97


def test_other_tables_and_labels_are_fitted():
    wine = load_wine()
    names = wine.target_names[wine.target]
    model = fit_model(wine.data, names)
    assert model.classes_.tolist() == ["class_0", "class_1", "class_2"]
    assert model.score(wine.data, names) > 0.95
    assert (fit_model(csr_matrix(wine.data), names).coef_ == model.coef_).all()
    strong = fit_model(wine.data, names, regularization=80)
    assert np.abs(strong.coef_).sum() < np.abs(model.coef_).sum() / 2


@pytest.mark.parametrize(
    ("X", "y", "regularization", "message"),
    [
        (np.eye(3), [1, 1, 1], 0.8, "y has one class only, 1"),
        (np.eye(3), [1, 2, 1], 0, "regularization is 0, expected more than 0"),
        (np.eye(3), [1, 2, 1], float("nan"), "regularization is nan"),
        (np.eye(3), [1, 2], 0.8, "inconsistent numbers of samples"),
        (np.full((3, 2), np.nan), [1, 2, 1], 0.8, "contains NaN"),
    ],
)
def test_invalid_training_data_is_rejected(X, y, regularization, message):
    with pytest.raises(ValueError, match=message):
        fit_model(X, y, regularization)


@pytest.mark.slow
def test_accuracy_on_mnist_is_the_published_one(genuine_model, genuine_dir):
    X_test, y_test = load_test_data(genuine_dir)
    labels = genuine_model.predict(X_test)
    assert np.average(labels == y_test) == pytest.approx(0.9204, abs=0.0003)
    assert np.abs(confusion_matrix(y_test, labels) - PUBLISHED).sum() <= 8
