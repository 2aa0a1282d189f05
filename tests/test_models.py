"""Models: fetched and downloaded from a local workspace; their files verified."""

from __future__ import annotations

import hashlib
import os
import pickle
import re
from importlib.metadata import version
from pathlib import Path

import joblib
import numpy as np
import pytest
import sklearn
from azureml.core import Model
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mnist_deploy import download_model, fetch_model
from mnist_deploy.errors import ModelError, WorkspaceError
from mnist_deploy.models import find_problem, loads_here, same_minor, saved_with, sha256_of

HERE = version("scikit-learn")


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def fitted():
    return LogisticRegression().fit(np.eye(4), [0, 0, 1, 1])


def register(ws, estimator, name: str, *, cut: int | None = None, **properties) -> Model:
    """Register an estimator that joblib wrote, truncated to `cut` bytes."""
    joblib.dump(estimator, "model.pkl")
    properties = {"sha256": sha256_of(Path("model.pkl"))} | properties
    Path("model.pkl").write_bytes(Path("model.pkl").read_bytes()[:cut])
    model = Model.register(ws, "model.pkl", name, properties=properties)
    os.remove("model.pkl")
    return model


# --- fetch ---


def test_fetch_model_returns_the_newest_or_a_version(ws, fitted, capfd):
    models = [register(ws, fitted, "fetched") for _ in range(2)]
    register(ws, fitted, "others")
    assert isinstance(fetch_model(ws, "fetched"), Model)
    assert fetch_model(ws, "fetched").id == models[1].id
    assert fetch_model(ws, "fetched", version=models[0].version).id == models[0].id
    capfd.readouterr()
    with pytest.raises(ModelError) as raised:
        fetch_model(ws, "absent")
    assert str(raised.value).startswith("Model 'absent' is not registered in workspace 'local'.")
    assert models[1].id in str(raised.value)
    assert models[0].id not in str(raised.value)
    assert "prepare_workspace(ws)" in str(raised.value)
    for version_number in (0, 77):
        message = f"Version {version_number} of model 'fetched' is not registered"
        with pytest.raises(ModelError, match=message) as raised:
            fetch_model(ws, "fetched", version=version_number)
    assert f"Registered are: {', '.join(model.id for model in models)}." in str(raised.value)
    assert capfd.readouterr() == ("", "")


def test_workspace_that_does_not_respond_is_reported(ws, monkeypatch):
    def fail(*_, **__):
        raise ConnectionError("no route to host")

    monkeypatch.setattr(Model, "__init__", fail)
    with pytest.raises(WorkspaceError, match="could not fetch the model 'x': no route to host"):
        fetch_model(ws, "x")


# --- download ---


def test_download_model_replaces_the_old_file_only(ws, fitted, capfd):
    model = register(ws, fitted, "whole", **{"scikit-learn": HERE})
    capfd.readouterr()
    assert download_model(model) == Path("model.pkl")
    assert os.listdir() == ["model.pkl"]
    assert capfd.readouterr() == ("", "")
    Path("new/folder").mkdir(parents=True)
    Path("new/folder/model.pkl").write_text("an old one")
    Path("new/folder/notes.txt").write_text("mine")
    path = download_model(model, "new/folder")
    assert (joblib.load(path).predict(np.eye(4)) == [0, 0, 1, 1]).all()
    assert sorted(os.listdir("new/folder")) == ["model.pkl", "notes.txt"]
    assert download_model(model, "another/folder").is_file()


def test_download_model_of_a_folder(ws, fitted):
    Path("bundle/deep").mkdir(parents=True)
    joblib.dump(fitted, "bundle/deep/model.pkl")
    Path("bundle/labels.txt").write_text("a b")
    model = Model.register(ws, "bundle", "bundle")
    path = download_model(model, "here")
    assert path == Path("here/bundle")
    assert (path / "labels.txt").read_text() == "a b"
    assert joblib.load(path / "deep" / "model.pkl").C == 1
    download_model(model, "here")  # replaces the files


def test_truncated_pickle_is_rejected_and_the_old_file_kept(ws, fitted):
    """Without a registered sha256, as for a model of part one on Azure."""
    Path("model.pkl").write_text("the old one")
    old = Path("model.pkl").read_text()
    joblib.dump(fitted, "sound.pkl")
    Path("cut.pkl").write_bytes(Path("sound.pkl").read_bytes()[:-20])
    model = Model.register(ws, "cut.pkl", "cut")
    with pytest.raises(ModelError) as raised:
        download_model(model)
    assert str(raised.value) == (
        f"cut.pkl of model {model.id} must not be loaded, and was deleted: it is truncated. "
        "Download it again; if that does not help, register the model again."
    )
    assert Path("model.pkl").read_text() == old
    assert sorted(os.listdir()) == ["cut.pkl", "model.pkl", "sound.pkl"]


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"sha256": "0" * 64}, "its sha256 differs from the registered one"),
        ({"cut": 0}, "it is empty"),
    ],
)
def test_file_that_differs_from_the_registered_one_is_rejected(ws, fitted, changes, problem):
    model = register(ws, fitted, "changed", **changes)
    message = rf"model\.pkl of model {model.id} must not be loaded.*: {problem}"
    with pytest.raises(ModelError, match=message):
        download_model(model, "target")
    assert os.listdir("target") == []


@pytest.mark.parametrize("source", ["property", "framework", "file"])
def test_another_minor_version_is_rejected_before_loading(ws, fitted, monkeypatch, source):
    properties = {"scikit-learn": "0.22.1"} if source == "property" else {}
    if source == "file":
        monkeypatch.setattr(sklearn.base, "__version__", "0.22.1")
    joblib.dump(fitted, "old.pkl")
    framework = {"model_framework": "ScikitLearn", "model_framework_version": "0.22.1"}
    model = Model.register(
        ws,
        "old.pkl",
        "old",
        properties=properties,
        **framework if source == "framework" else {},
    )
    with pytest.raises(ModelError) as raised:
        download_model(model, "target")
    message = str(raised.value)
    assert f"was saved by scikit-learn 0.22.1; installed is {HERE}." in message
    assert "pip install scikit-learn==0.22.1" in message
    assert not list(Path().rglob("target/*"))


def test_failed_download_keeps_the_old_file_and_shows_no_signed_url(ws, fitted, monkeypatch):
    model = register(ws, fitted, "broken")
    Path("model.pkl").write_text("the old one")

    def break_off(self, target_dir, exist_ok=False):
        (Path(target_dir) / "model.pkl").write_bytes(b"half")
        raise ConnectionError("https://store.blob/model.pkl?sv=1&sig=S3CRET broke off")

    with monkeypatch.context() as patch:
        patch.setattr(Model, "download", break_off)
        with pytest.raises(ModelError, match="broke off") as raised:
            download_model(model)
    assert "S3CRET" not in str(raised.value)
    assert (raised.value.__cause__, raised.value.__suppress_context__) == (None, True)
    model.delete()
    with pytest.raises(ModelError, match=f"Model {model.id} could not be downloaded: "):
        download_model(model)
    assert {name: Path(name).read_text() for name in os.listdir()} == {"model.pkl": "the old one"}


# --- what a file states before it is loaded ---


@pytest.fixture(scope="module")
def estimator():
    X = np.random.default_rng(0).random((30, 5))
    model = OneVsRestClassifier(LogisticRegression())
    return make_pipeline(StandardScaler(), model).fit(X, np.arange(30) % 3)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("library", [pickle, joblib])
def test_version_is_read_from_the_pickle(estimator, tmp_path, library, protocol):
    file = tmp_path / "model.pkl"
    with open(file, "wb") as opened:
        library.dump(estimator, opened, protocol=protocol)
    assert saved_with(file) == sklearn.__version__
    assert find_problem(file, None) is None


def test_version_is_that_of_the_file(estimator, tmp_path, monkeypatch):
    """Of a file as an old scikit-learn wrote it."""
    monkeypatch.setattr(sklearn.base, "__version__", "0.22.2.post1")
    file = tmp_path / "model.pkl"
    joblib.dump(estimator, file)
    assert saved_with(file) == "0.22.2.post1"
    assert not loads_here(saved_with(file))


@pytest.mark.parametrize("content", [{"weights": [1, 2]}, "the text _sklearn_version 1.2.3"])
def test_other_content_has_no_version(tmp_path, content):
    joblib.dump(content, tmp_path / "other.pkl")
    assert saved_with(tmp_path / "other.pkl") is None


def test_file_is_not_executed(tmp_path):
    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "executed"),)

    joblib.dump(Trap(), tmp_path / "trap.pkl")
    saved_with(tmp_path / "trap.pkl")
    find_problem(tmp_path / "trap.pkl", sha256_of(tmp_path / "trap.pkl"))
    assert not (tmp_path / "executed").exists()
    joblib.load(tmp_path / "trap.pkl")  # to show that the file would execute
    assert (tmp_path / "executed").exists()


def test_truncated_empty_and_changed_files_have_a_problem(estimator, tmp_path):
    file = tmp_path / "model.pkl"
    joblib.dump(estimator, file)
    whole = file.read_bytes()
    problems = {}
    for kept in (0, 1, 100, -1, None):
        file.write_bytes(whole[:kept])
        problems[kept] = find_problem(file, None)
    truncated = "it is truncated"
    assert problems == {0: "it is empty", 1: truncated, 100: truncated, -1: truncated, None: None}
    registered = hashlib.sha256(whole).hexdigest()
    assert (sha256_of(file), find_problem(file, registered)) == (registered, None)
    file.write_bytes(whole + b"more")
    assert "sha256" in find_problem(file, registered)


@pytest.mark.parametrize("method", ["zlib", "gzip", "bz2", "lzma", "xz"])
def test_compressed_pickle_is_verified_as_an_uncompressed_one(
    estimator, tmp_path, method, monkeypatch
):
    monkeypatch.setattr(sklearn.base, "__version__", "0.22.1")
    file = tmp_path / "model.joblib"
    joblib.dump(estimator, file, compress=(method, 3))
    assert find_problem(file, None) is None
    assert saved_with(file) == "0.22.1"
    file.write_bytes(file.read_bytes()[:-30])
    assert find_problem(file, None) == "it is truncated or damaged"
    assert saved_with(file) is None


def test_another_patch_release_is_warned_of(ws, fitted):
    patch_release = ".".join([*HERE.split(".")[:2], "99"])
    model = register(ws, fitted, "patched", **{"scikit-learn": patch_release})
    with pytest.warns(UserWarning, match=f"saved by scikit-learn {patch_release}; installed is"):
        assert download_model(model).is_file()


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("1.9.0", "1.9.1", True),
        ("1.9", "1.9.1", True),
        ("1.9.dev0", "1.9.1", True),
        ("1.9.1", "1.10.1", False),
        ("0.22.2.post1", "0.22.1", True),
        ("2.9.1", "1.9.1", False),
        ("unknown", "1.9.1", False),
    ],
)
def test_same_minor_compares_the_first_two_numbers(one, other, expected):
    assert same_minor(one, other) is expected
    assert same_minor(other, one) is expected


def test_loads_here_compares_with_the_installed_version():
    here = version("scikit-learn")
    assert loads_here(here)
    assert not loads_here(re.sub(r"^\d+\.\d+", "0.1", here))
