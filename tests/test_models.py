"""Models, fetched and downloaded from a genuine local workspace, and what their files tell."""

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
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def fitted():
    return LogisticRegression().fit(np.eye(4), [0, 0, 1, 1])


def register(ws, estimator, name: str, *, cut: int | None = None, **properties) -> Model:
    """Register what joblib writes of an estimator, cut short if that is asked for."""
    joblib.dump(estimator, "model.pkl")
    properties = {"sha256": sha256_of(Path("model.pkl"))} | properties
    Path("model.pkl").write_bytes(Path("model.pkl").read_bytes()[:cut])
    model = Model.register(ws, "model.pkl", name, properties=properties)
    os.remove("model.pkl")
    return model


# Fetch


def test_fetches_the_newest_or_a_version_and_tells_what_there_is(ws, fitted, capfd):
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
    for wanted in (0, 77):
        said = f"Version {wanted} of model 'fetched' is not registered"
        with pytest.raises(ModelError, match=said) as raised:
            fetch_model(ws, "fetched", version=wanted)
    assert f"Registered are: {', '.join(model.id for model in models)}." in str(raised.value)
    assert capfd.readouterr() == ("", "")


def test_a_workspace_that_does_not_answer(ws, monkeypatch):
    def refuse(*_, **__):
        raise ConnectionError("the line is dead")

    monkeypatch.setattr(Model, "__init__", refuse)
    with pytest.raises(WorkspaceError, match="could not fetch the model 'x': the line is dead"):
        fetch_model(ws, "x")


# Download


def test_downloads_what_was_registered_over_what_was_there(ws, fitted, capfd):
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


def test_downloads_a_folder(ws, fitted):
    Path("bundle/deep").mkdir(parents=True)
    joblib.dump(fitted, "bundle/deep/model.pkl")
    Path("bundle/labels.txt").write_text("a b")
    model = Model.register(ws, "bundle", "bundle")
    path = download_model(model, "here")
    assert path == Path("here/bundle")
    assert (path / "labels.txt").read_text() == "a b"
    assert joblib.load(path / "deep" / "model.pkl").C == 1
    download_model(model, "here")  # again, over it


def test_a_truncated_pickle_is_refused_and_the_old_file_stays(ws, fitted):
    """Also where nobody registered a sha256, as part one on Azure does not."""
    Path("model.pkl").write_text("the old one")
    old = Path("model.pkl").read_text()
    joblib.dump(fitted, "sound.pkl")
    Path("cut.pkl").write_bytes(Path("sound.pkl").read_bytes()[:-20])
    model = Model.register(ws, "cut.pkl", "cut")
    with pytest.raises(ModelError) as raised:
        download_model(model)
    assert str(raised.value) == (
        f"cut.pkl of model {model.id} is not fit to be loaded, and was not kept: it is cut short. "
        "Download it again; if that does not help, register the model anew."
    )
    assert Path("model.pkl").read_text() == old
    assert sorted(os.listdir()) == ["cut.pkl", "model.pkl", "sound.pkl"]


@pytest.mark.parametrize(
    ("how", "why"),
    [
        ({"sha256": "0" * 64}, "its sha256 is not the one that it was registered with"),
        ({"cut": 0}, "it is empty"),
    ],
)
def test_a_file_that_is_not_the_registered_one_is_refused(ws, fitted, how, why):
    model = register(ws, fitted, "changed", **how)
    with pytest.raises(ModelError, match=rf"model\.pkl of model {model.id} is not fit .*: {why}"):
        download_model(model, "target")
    assert os.listdir("target") == []


@pytest.mark.parametrize("said_by", ["property", "framework", "file"])
def test_another_scikit_learn_is_refused_before_loading(ws, fitted, monkeypatch, said_by):
    properties = {"scikit-learn": "0.22.1"} if said_by == "property" else {}
    if said_by == "file":
        monkeypatch.setattr(sklearn.base, "__version__", "0.22.1")
    joblib.dump(fitted, "old.pkl")
    framework = {"model_framework": "ScikitLearn", "model_framework_version": "0.22.1"}
    model = Model.register(
        ws,
        "old.pkl",
        "old",
        properties=properties,
        **framework if said_by == "framework" else {},
    )
    with pytest.raises(ModelError) as raised:
        download_model(model, "target")
    message = str(raised.value)
    assert f"was saved by scikit-learn 0.22.1, and installed here is {HERE}" in message
    assert "pip install scikit-learn==0.22.1" in message
    assert not list(Path().rglob("target/*"))


def test_a_download_that_breaks_off_leaves_the_old_file_and_tells_no_address(
    ws, fitted, monkeypatch
):
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
    model.delete()  # meanwhile
    with pytest.raises(ModelError, match=f"Model {model.id} could not be downloaded: "):
        download_model(model)
    assert {name: Path(name).read_text() for name in os.listdir()} == {"model.pkl": "the old one"}


# What a file tells before it is loaded


@pytest.fixture(scope="module")
def estimator():
    X = np.random.default_rng(0).random((30, 5))
    model = OneVsRestClassifier(LogisticRegression())
    return make_pipeline(StandardScaler(), model).fit(X, np.arange(30) % 3)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("library", [pickle, joblib])
def test_the_version_is_read_from_the_bytes(estimator, tmp_path, library, protocol):
    file = tmp_path / "model.pkl"
    with open(file, "wb") as opened:
        library.dump(estimator, opened, protocol=protocol)
    assert saved_with(file) == sklearn.__version__
    assert find_problem(file, None) is None


def test_the_version_is_that_of_the_file_and_not_the_one_here(estimator, tmp_path, monkeypatch):
    """As old scikit-learn would have written it; loading it warns or fails, reading it does not."""
    monkeypatch.setattr(sklearn.base, "__version__", "0.22.2.post1")
    file = tmp_path / "model.pkl"
    joblib.dump(estimator, file)
    assert saved_with(file) == "0.22.2.post1"
    assert not loads_here(saved_with(file))


@pytest.mark.parametrize("content", [{"weights": [1, 2]}, "the text _sklearn_version 1.2.3"])
def test_what_is_no_estimator_names_no_version(tmp_path, content):
    joblib.dump(content, tmp_path / "other.pkl")
    assert saved_with(tmp_path / "other.pkl") is None


def test_nothing_in_the_file_is_run(tmp_path):
    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "was-run"),)

    joblib.dump(Trap(), tmp_path / "trap.pkl")
    saved_with(tmp_path / "trap.pkl")
    find_problem(tmp_path / "trap.pkl", sha256_of(tmp_path / "trap.pkl"))
    assert not (tmp_path / "was-run").exists()
    joblib.load(tmp_path / "trap.pkl")  # so this is what reading it must not do
    assert (tmp_path / "was-run").exists()


def test_a_file_that_is_cut_short_empty_or_changed_has_a_problem(estimator, tmp_path):
    file = tmp_path / "model.pkl"
    joblib.dump(estimator, file)
    whole = file.read_bytes()
    problems = {}
    for kept in (0, 1, 100, -1, None):
        file.write_bytes(whole[:kept])
        problems[kept] = find_problem(file, None)
    short = "it is cut short"
    assert problems == {0: "it is empty", 1: short, 100: short, -1: short, None: None}
    registered = hashlib.sha256(whole).hexdigest()
    assert (sha256_of(file), find_problem(file, registered)) == (registered, None)
    file.write_bytes(whole + b"more")
    assert "sha256" in find_problem(file, registered)


@pytest.mark.parametrize("compress", [("zlib", 3), ("gzip", 3), ("lzma", 3)])
def test_a_compressed_pickle_passes(estimator, tmp_path, compress):
    file = tmp_path / "model.joblib"
    joblib.dump(estimator, file, compress=compress)
    assert find_problem(file, None) is None


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
def test_versions_of_one_minor_release_go_together(one, other, expected):
    assert same_minor(one, other) is expected
    assert same_minor(other, one) is expected


def test_loads_here_is_about_the_installed_version():
    here = version("scikit-learn")
    assert loads_here(here)
    assert not loads_here(re.sub(r"^\d+\.\d+", "0.1", here))
