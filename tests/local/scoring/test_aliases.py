"""Former module names, imported in processes of their own."""

from __future__ import annotations

import importlib
import importlib.util
import shutil
import subprocess
import sys

import joblib
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from mnist_deploy.local.scoring import aliases

INSTALL = "from mnist_deploy.local.scoring import aliases; aliases.install()\n"


def python(script: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", script, *arguments],
        env=environment or None,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture
def model():
    rows = np.random.default_rng(0).random((30, 4))
    return LogisticRegression().fit(rows, np.arange(30) % 3)


@pytest.mark.processes
def test_former_name_is_unknown_without_aliases():
    assert "cannot import name 'joblib'" in python("from sklearn.externals import joblib").stderr


@pytest.mark.processes
@pytest.mark.parametrize(
    "statement",
    ["from sklearn.externals import joblib", "import sklearn.externals.joblib as joblib"],
)
def test_joblib_is_imported_by_its_former_name(statement):
    answer = python(
        f"{INSTALL}{statement}\nimport joblib as today\n"
        "print(joblib is today, today.__spec__.name, today.__name__)"
    )
    assert answer.stdout == "True joblib joblib\n", answer.stderr
    assert (
        answer.stderr.count("FutureWarning: scikit-learn has removed sklearn.externals.joblib") == 1
    )


@pytest.mark.processes
def test_model_that_was_saved_in_2018_loads(model, tmp_path):
    """The pickle has protocol 2 and the module names of scikit-learn 0.20."""
    file = tmp_path / "old.pkl"
    joblib.dump(model, file, protocol=2)
    saved = file.read_bytes()
    for today, then in (
        (b"csklearn.linear_model._logistic\n", b"csklearn.linear_model.logistic\n"),
        (b"cjoblib.numpy_pickle\n", b"csklearn.externals.joblib.numpy_pickle\n"),
    ):
        assert today in saved
        saved = saved.replace(today, then)
    file.write_bytes(saved)
    script = "import joblib, sys; print(joblib.load(sys.argv[1]).coef_.tolist())"
    assert "No module named 'sklearn.linear_model.logistic'" in python(script, str(file)).stderr
    assert python(INSTALL + script, str(file)).stdout == f"{model.coef_.tolist()}\n"


@pytest.mark.parametrize(
    ("then", "today"),
    [
        ("linear_model.ridge.Ridge", "linear_model._ridge.Ridge"),
        ("svm.classes.SVC", "svm.SVC"),
        ("neighbors.kd_tree.KDTree", "neighbors.KDTree"),  # compiled
        ("cluster.k_means_.KMeans", "cluster._kmeans.KMeans"),  # but for the underscores
        ("preprocessing.data.PolynomialFeatures", "preprocessing.PolynomialFeatures"),
        ("tree.tree.DecisionTreeClassifier", "tree.DecisionTreeClassifier"),  # not in tree._tree
    ],
)
def test_module_that_moved_within_scikit_learn_is_found_by_rule(then, today):
    module, _, name = f"sklearn.{then}".rpartition(".")
    package = importlib.import_module(module.rpartition(".")[0])
    spec = aliases.Aliases({}).find_spec(module, package.__path__)
    with pytest.warns(FutureWarning, match=f"has removed {module}.* imports sklearn"):
        found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    module, _, today = f"sklearn.{today}".rpartition(".")
    assert getattr(found, name) is getattr(importlib.import_module(module), today)


def test_offline_substitute_hides_the_module_of_its_name(tmp_path):
    (tmp_path / "colorsys.py").write_text("genuine = True")
    (tmp_path / "other.py").write_text("genuine = False")
    script = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "from mnist_deploy.local.scoring import aliases; aliases.install({'colorsys': 'other'})\n"
        "import colorsys, other; print(colorsys is other, colorsys.genuine)"
    )
    assert python(script).stdout == "True False\n"


def test_hidden_sitecustomize_is_run_as_well(tmp_path):
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    for folder in (ours, theirs):
        folder.mkdir()
    shutil.copyfile(aliases.__file__, ours / "sitecustomize.py")
    (theirs / "sitecustomize.py").write_text("import builtins; builtins.seen = 'theirs'")
    answer = python(
        "from azureml import opendatasets; print(seen, opendatasets.__name__)",
        PYTHONPATH=f"{ours}:{theirs}",
        MNIST_DEPLOY_SUBSTITUTES="azureml.opendatasets=wave",
    )
    assert answer.stdout == "theirs wave\n", answer.stderr


@pytest.mark.processes
def test_other_names_are_not_affected():
    answer = python(f"{INSTALL}import sklearn.externals.nothing")
    assert "No module named 'sklearn.externals.nothing'" in answer.stderr
    answer = python(f"{INSTALL}import sklearn.linear_model.logistics")
    assert "No module named 'sklearn.linear_model.logistics'" in answer.stderr
