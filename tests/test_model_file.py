"""What a saved model tells before it is loaded."""

from __future__ import annotations

import hashlib
import pickle
import re
from importlib.metadata import version

import joblib
import numpy as np
import pytest
import sklearn
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mnist_deploy.model_file import find_problem, loads_here, same_minor, saved_with, sha256_of


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
            return open, (str(tmp_path / "was-run"), "w")

    joblib.dump(Trap(), tmp_path / "trap.pkl")
    saved_with(tmp_path / "trap.pkl")
    find_problem(tmp_path / "trap.pkl", sha256_of(tmp_path / "trap.pkl"))
    assert not (tmp_path / "was-run").exists()
    joblib.load(tmp_path / "trap.pkl")  # so this is what reading it must not do
    assert (tmp_path / "was-run").exists()


@pytest.mark.parametrize("kept", [1, 100, -1])
def test_a_pickle_that_is_cut_short(estimator, tmp_path, kept):
    file = tmp_path / "model.pkl"
    joblib.dump(estimator, file)
    file.write_bytes(file.read_bytes()[:kept])
    assert find_problem(file, None) == "it is cut short"


@pytest.mark.parametrize("compress", [("zlib", 3), ("gzip", 3), ("lzma", 3)])
def test_a_compressed_pickle_passes(estimator, tmp_path, compress):
    file = tmp_path / "model.joblib"
    joblib.dump(estimator, file, compress=compress)
    assert find_problem(file, None) is None


def test_a_changed_file(tmp_path):
    file = tmp_path / "model.bin"
    file.write_bytes(b"as registered")
    registered = hashlib.sha256(b"as registered").hexdigest()
    assert sha256_of(file) == registered
    assert find_problem(file, registered) is None
    file.write_bytes(b"as changed")
    assert "sha256" in find_problem(file, registered)


def test_an_empty_file(tmp_path):
    (tmp_path / "empty.txt").touch()
    assert find_problem(tmp_path / "empty.txt", None) == "it is empty"


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
