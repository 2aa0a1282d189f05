"""What part one leaves behind: made once, made anew for a reason, and otherwise left alone."""

from __future__ import annotations

import json
import os
from importlib.metadata import version
from pathlib import Path

import joblib
import numpy as np
import pytest
from azureml.core import Environment, Model
from sklearn.linear_model import LogisticRegression

from mnist_deploy import data, fetch_environment, load_test_data, prepare_workspace
from mnist_deploy.data import MnistFiles, write_idx
from mnist_deploy.errors import DataError, WorkspaceError
from mnist_deploy.files import NAMES
from mnist_deploy.model_file import sha256_of
from mnist_deploy.preparation import _is_current
from mnist_deploy.scoring_environment import pinned_version

HERE = version("scikit-learn")
TRAINED = {"data": "sample: 4000 images", "scikit-learn": HERE, "sha256": "0", "accuracy": "0.9"}


@pytest.fixture(autouse=True)
def _no_network(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def fail():
        raise DataError("there is no network")

    monkeypatch.setattr(data, "fetch_from_azure", fail)


@pytest.fixture
def empty_ws(ws):
    """The workspace without the tutorial's model, whatever another test registered."""
    for model in Model.list(ws, name="sklearn_mnist"):
        model.delete()
    return ws


@pytest.fixture(scope="module")
def own_dir(tmp_path_factory) -> Path:
    """A few images of one's own, of three classes that are easy to tell apart."""
    folder = tmp_path_factory.mktemp("own")
    labels = np.arange(60, dtype=np.uint8) % 3
    images = np.zeros((60, 28, 28), np.uint8)
    for image, label in zip(images, labels, strict=True):
        image[label * 9 : label * 9 + 9] = 255
    for (images_name, labels_name), *_ in NAMES.values():
        write_idx(folder / images_name, images)
        write_idx(folder / labels_name, labels)
    return folder


def register(ws, tmp_path, **properties) -> Model:
    """A model as an earlier run, or somebody else, would have registered it."""
    joblib.dump(LogisticRegression(), tmp_path / "sklearn_mnist_model.pkl")
    return Model.register(ws, "sklearn_mnist_model.pkl", "sklearn_mnist", properties=properties)


def versions(ws) -> list[int]:
    return sorted(model.version for model in Model.list(ws, name="sklearn_mnist"))


def test_makes_both_and_then_does_nothing(empty_ws, sample_dir, capsys):
    model = prepare_workspace(empty_ws, sample_dir)
    first = capsys.readouterr().out
    assert f"Registered model {model.id}" in first
    assert (model.name, model.tags) == ("sklearn_mnist", {"data": "MNIST", "method": "sklearn"})
    assert model.properties["data"] == "sample: 4000 images"
    assert model.properties["scikit-learn"] == HERE
    path = model.download("kept")
    assert model.properties["sha256"] == sha256_of(Path(path))
    accuracy = joblib.load(path).score(*load_test_data(sample_dir))
    assert model.properties["accuracy"] == f"{accuracy:.4f}"
    assert 0.88 < accuracy < 0.92
    environment = fetch_environment(empty_ws)

    again = prepare_workspace(empty_ws, sample_dir)
    second = capsys.readouterr().out
    assert again.id == model.id
    assert versions(empty_ws) == [model.version]
    assert fetch_environment(empty_ws).version == environment.version
    assert "Registered" not in second
    assert "Training" not in second


def test_the_environment_pins_what_trained_the_model(empty_ws, own_dir):
    model = prepare_workspace(empty_ws, own_dir)
    environment = fetch_environment(empty_ws)
    assert pinned_version(environment, "scikit-learn") == model.properties["scikit-learn"]
    assert pinned_version(environment, "numpy") == np.__version__
    assert pinned_version(environment, "joblib") == joblib.__version__


def test_leaves_no_file_in_the_working_directory(empty_ws, own_dir, tmp_path):
    prepare_workspace(empty_ws, own_dir)
    assert list(tmp_path.iterdir()) == []


def test_regularization_reaches_the_model(empty_ws, own_dir):
    model = prepare_workspace(empty_ws, own_dir, regularization=5)
    assert joblib.load(model.download("kept")).C == 1 / 5


def test_trains_anew_when_better_data_are_at_hand(empty_ws, own_dir, tmp_path, capsys):
    old = register(empty_ws, tmp_path, **TRAINED)
    model = prepare_workspace(empty_ws, own_dir)
    assert versions(empty_ws) == [old.version, model.version]
    assert model.properties["data"] == "own: 60 images"
    assert prepare_workspace(empty_ws, own_dir).id == model.id


def test_the_sample_takes_the_place_of_nothing(empty_ws, sample_dir, tmp_path):
    old = register(empty_ws, tmp_path, **TRAINED | {"data": "genuine: 60000 images"})
    assert prepare_workspace(empty_ws, sample_dir).id == old.id


@pytest.mark.parametrize(
    ("trained_on", "at_hand", "current"),
    [
        ("sample", "sample", True),
        ("sample", "genuine", False),
        ("genuine", "sample", True),
        ("genuine", "genuine", True),
        ("genuine", "own", False),
        ("own", "sample", True),
        ("own", "genuine", False),
    ],
)
def test_which_data_are_better(trained_on, at_hand, current):
    model = Model(workspace=None)
    model.properties = TRAINED | {"data": f"{trained_on}: 9 images"}
    files = MnistFiles(*[Path("f")] * 4, source="", kind=at_hand)
    assert _is_current(model, files) is current


def test_trains_anew_when_scikit_learn_was_changed(empty_ws, own_dir, tmp_path):
    old = register(
        empty_ws, tmp_path, **TRAINED | {"data": "own: 60 images", "scikit-learn": "0.22.1"}
    )
    model = prepare_workspace(empty_ws, own_dir)
    assert versions(empty_ws) == [old.version, model.version]
    assert model.properties["scikit-learn"] == HERE


def test_a_patch_release_trains_nothing_anew_and_the_environment_follows(
    empty_ws, own_dir, tmp_path
):
    """Model of 1.9.0, 1.9.1 installed: the model stays, and so must the environment's pin."""
    almost = ".".join([*HERE.split(".")[:2], "99"])
    old = register(
        empty_ws, tmp_path, **TRAINED | {"data": "own: 60 images", "scikit-learn": almost}
    )
    assert prepare_workspace(empty_ws, own_dir).id == old.id
    environment = fetch_environment(empty_ws)
    assert pinned_version(environment, "scikit-learn") == almost
    prepare_workspace(empty_ws, own_dir)
    assert fetch_environment(empty_ws).version == environment.version


def test_a_model_from_part_one_on_azure_is_left_alone(empty_ws, tmp_path, monkeypatch):
    """Without our properties: neither the data nor the model nor its environment is touched."""
    prepare_environment_of_part_one(empty_ws)
    environment = fetch_environment(empty_ws)
    old = register(empty_ws, tmp_path)
    monkeypatch.setattr(data, "download_mnist", lambda folder: pytest.fail("data was looked for"))
    assert prepare_workspace(empty_ws, tmp_path).id == old.id
    found = fetch_environment(empty_ws)
    assert found.version == environment.version
    assert pinned_version(found, "scikit-learn") == "0.22.1"


def prepare_environment_of_part_one(ws) -> None:
    environment = Environment("tutorial-env")
    environment.python.conda_dependencies.add_pip_package("scikit-learn==0.22.1")
    environment.register(ws)


def test_nothing_is_registered_without_data(empty_ws, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train-images-idx3-ubyte.gz").write_bytes(b"damaged")
    with pytest.raises(DataError):
        prepare_workspace(empty_ws, tmp_path / "data")
    assert versions(empty_ws) == []


def test_a_workspace_that_takes_nothing_is_told(empty_ws, own_dir, monkeypatch):
    def refuse(*_, **__):
        raise ConnectionError("the disk is full")

    monkeypatch.setattr(Model, "register", refuse)
    with pytest.raises(WorkspaceError, match=r"'local' could not register the model: the disk is"):
        prepare_workspace(empty_ws, own_dir)
    assert os.listdir() == []


def test_properties_are_text_as_azure_demands(empty_ws, own_dir):
    model = prepare_workspace(empty_ws, own_dir)
    assert json.loads(json.dumps(model.properties)) == model.properties
    assert set(map(type, model.properties.values())) == {str}
