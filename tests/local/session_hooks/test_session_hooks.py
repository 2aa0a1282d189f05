"""The import hooks of ``exec`` and of runs, in processes that start with them."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from mnist_deploy.local.scoring import aliases
from mnist_deploy.local.session_hooks import old_keywords
from mnist_deploy.local.session_hooks.copies import write_hooks

PROCESS_TIMEOUT = 120  # seconds for one process on a busy machine


@pytest.fixture(scope="module")
def start_modules(tmp_path_factory) -> list[str]:
    """The folders that ``exec`` puts in PYTHONPATH."""
    folder = tmp_path_factory.mktemp("start")
    names = folder / "aliases"
    names.mkdir()
    shutil.copyfile(aliases.__file__, names / "sitecustomize.py")
    return [str(names), str(write_hooks(folder / "hooks"))]


@pytest.fixture
def run_python(start_modules):
    """Run a program with the hooks; what it printed, warnings as well."""

    def run(program: str, *, succeeds: bool = True, **variables: str) -> str:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(start_modules), **variables}
        environment.pop("AZUREML_RUN_ID", None)
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(program)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=PROCESS_TIMEOUT,
        )
        assert (done.returncode == 0) == succeeds, done.stdout
        return done.stdout

    return run


def test_old_names_of_numpy_are_bridged_with_a_warning_for_scripts_only(run_python):
    printed = run_python(
        """
        import numpy as np
        assert np.float(1) == 1.0 and np.object is object and np.NaN is np.nan
        assert np.product([2, 3]) == 6
        try:
            np.no_such_name
        except AttributeError:
            print("other names stay unknown")
        source = "import numpy; seen = hasattr(numpy, 'float')"
        module = compile(source, "/site-packages/x.py", "exec")
        names = {}
        exec(module, names)
        print("seen by a library:", names["seen"])
        """
    )
    assert "numpy.float was removed: float is used instead." in printed
    assert "other names stay unknown" in printed
    assert "seen by a library: False" in printed


@pytest.mark.processes
def test_training_script_of_2018_fits_ten_classes_and_its_model_loads_without_hooks(
    run_python, tmp_path
):
    """The estimator of the tutorial's train.py, as its editions call it."""
    program = """
        import joblib
        import sys
        from sklearn.base import clone
        from sklearn.datasets import load_digits
        from sklearn.linear_model import LogisticRegression
        X, y = load_digits(return_X_y=True)
        model = LogisticRegression(C=1.0, solver="liblinear", multi_class="auto", random_state=42)
        model.fit(X[:1000], y[:1000])
        print("accuracy", round(model.score(X[1000:], y[1000:]), 2) > 0.85, model.coef_.shape)
        clone(model)
        joblib.dump(model, sys.argv[1] if len(sys.argv) > 1 else {path!r})
        """
    path = str(tmp_path / "model.pkl")
    printed = run_python(program.replace("{path!r}", repr(path)))
    assert "accuracy True (10, 64)" in printed
    assert "LogisticRegression(multi_class='auto') was removed" in printed
    assert "one binary model is fitted for each class" in printed
    check = f"import joblib; print(joblib.load({path!r}).predict([[0] * 64]).shape)"
    plain = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True)
    assert plain.stdout.strip() == "(1,)", plain.stderr


@pytest.mark.processes
def test_keywords_that_were_renamed_get_their_names_of_today(run_python):
    printed = run_python(
        """
        from sklearn.ensemble import BaggingClassifier, RandomForestRegressor
        from sklearn.linear_model import LogisticRegression
        from sklearn.tree import DecisionTreeClassifier
        forest = RandomForestRegressor(criterion="mse", max_features="auto")
        print(forest.criterion, forest.max_features)
        print(BaggingClassifier(base_estimator=DecisionTreeClassifier()).estimator)
        try:
            LogisticRegression(no_such_keyword=1)
        except TypeError as error:
            print(error)
        """
    )
    assert "squared_error sqrt" in printed
    assert "DecisionTreeClassifier()" in printed
    assert "unexpected keyword argument 'no_such_keyword'" in printed


@pytest.mark.processes
def test_mlflow_saves_models_with_trees_as_before_mlflow_3_10(run_python, tmp_path):
    pytest.importorskip("mlflow.sklearn")
    pytest.importorskip("skops")
    printed = run_python(
        f"""
        import mlflow
        import mlflow.sklearn
        from sklearn.ensemble import RandomForestClassifier
        from sklearn.linear_model import LogisticRegression
        rows = [[0.0], [1.0]], [0, 1]
        for model in (RandomForestClassifier(n_estimators=2), LogisticRegression()):
            folder = {str(tmp_path)!r} + "/" + type(model).__name__
            mlflow.sklearn.save_model(model.fit(*rows), folder, pip_requirements=["scikit-learn"])
            print(mlflow.models.get_model_info(folder).flavors["sklearn"]["serialization_format"])
        """
    )
    assert printed.split("cloudpickle\n")[1].startswith("skops"), printed
    assert "save_model saves a RandomForestClassifier with cloudpickle" in printed


def test_value_stays_where_it_is_valid_today():
    import inspect

    def init(self, loss="log"):
        pass

    options = {"loss": "log"}
    assert old_keywords.bridge("Mine", inspect.signature(init), options) == options


def test_mnist_is_served_from_the_data_folder_at_its_old_addresses(run_python, tmp_path):
    folder = tmp_path / "data" / "deep"
    folder.mkdir(parents=True)
    (folder / "t10k-labels-idx1-ubyte.gz").write_bytes(b"labels")
    target = tmp_path / "target.gz"
    printed = run_python(
        f"""
        import os
        import urllib.request
        from urllib.request import urlretrieve
        address = "http://yann.lecun.com/exdb/mnist/t10k-labels-idx1-ubyte.gz"
        print(urlretrieve(address, filename={str(target)!r}))
        other = "https://azureopendatastorage.blob.core.windows.net/mnist/t10k-labels-idx1-ubyte.gz"
        print(urllib.request.urlopen(other).read())
        """,
        MNIST_DEPLOY_DATA=str(tmp_path / "data"),
    )
    assert target.read_bytes() == b"labels"
    assert f"is served from {folder}" in printed
    assert "b'labels'" in printed


def test_requests_to_other_addresses_are_unchanged(run_python, tmp_path):
    (tmp_path / "t10k-labels-idx1-ubyte.gz").write_bytes(b"mine")
    run_python(
        f"""
        from urllib.request import urlretrieve
        path, _ = urlretrieve({(tmp_path / "t10k-labels-idx1-ubyte.gz").as_uri()!r})
        assert open(path, "rb").read() == b"mine"
        """,
        MNIST_DEPLOY_DATA=str(tmp_path / "none"),
    )


@pytest.mark.processes
@pytest.mark.parametrize(
    ("module", "command"),
    [
        ("azureml.train.sklearn", "Install it with: pip install azureml-train-core"),
        ("azureml.pipeline.core", "part of the package azureml-pipeline. The local workspace"),
    ],
)
def test_missing_package_is_named_in_one_line(run_python, module, command):
    package = module.rpartition(".")[0]
    if importlib.util.find_spec(package) is not None:
        pytest.skip(f"{package} is installed")
    printed = run_python(f"import {module}", succeeds=False)
    assert command in printed.splitlines()[-1]


@pytest.mark.processes
def test_widget_has_an_offline_substitute(run_python):
    printed = run_python(
        """
        from types import SimpleNamespace
        from azureml.widgets import RunDetails
        run = SimpleNamespace(id="r1", get_status=lambda: "Completed")
        RunDetails(run).show()
        """
    )
    assert "Run r1: Completed" in printed


@pytest.mark.processes
def test_telemetry_is_off_before_the_sdk_reads_its_settings(run_python):
    printed = run_python(
        """
        from azureml.data import _loggerfactory
        import azureml.telemetry
        print(_loggerfactory.telemetry_enabled, azureml.telemetry.get_diagnostics_collection_info())
        """
    )
    assert "False (False, 'NOTSET')" in printed


def test_sitecustomize_that_the_hooks_hide_is_run(run_python, start_modules, tmp_path):
    Path(tmp_path, "sitecustomize.py").write_text("print('the one of the machine')")
    path = os.pathsep.join([*start_modules, str(tmp_path)])
    assert "the one of the machine" in run_python("pass", PYTHONPATH=path)


@pytest.mark.processes
def test_old_names_of_scikit_learn_and_hooks_work_together(run_python):
    """Both are installed by a ``sitecustomize`` of their own, one after the other."""
    printed = run_python(
        """
        import sys
        print([type(finder).__name__ for finder in sys.meta_path if type(finder).__name__ in
               ("Aliases", "_Finder", "_MissingFinder")])
        """
    )
    assert all(name in printed for name in ("Aliases", "_Finder", "_MissingFinder"))


def test_widget_shows_status_curve_and_log():
    from mnist_deploy.local.session_hooks.widgets import _render

    details = {
        "status": "Running",
        "startTimeUtc": "2026-11-29T17:00:00Z",
        "logFiles": {"user_logs/std_log.txt": "epoch <1>\n"},
    }
    shown = _render("r1", details, {"loss": [3, 2, 1], "rate": 0.5, "constant": [1, 1]})
    assert "<svg" in shown
    assert "epoch &lt;1&gt;" in shown
    assert "Running" in shown
