"""What is refused before anything is sent, and what is not refused although it looks odd."""

from __future__ import annotations

import ast
from pathlib import Path

import joblib
import pytest
from azureml.core import Environment, Model
from azureml.core.conda_dependencies import CondaDependencies
from azureml.core.model import InferenceConfig

from mnist_deploy import build_inference_config
from mnist_deploy.errors import DeploymentError
from mnist_deploy.preflight import (
    check_deployment,
    check_model_files,
    check_name,
    check_version,
    parse_script,
)
from mnist_deploy.scoring_environment import build_scoring_environment
from mnist_deploy.script_imports import find_missing, imported_modules
from mnist_deploy.tutorial import tutorial_file

SOUND = "def init():\n    pass\n\ndef run(data):\n    return data\n"


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def script(tmp_path) -> Path:
    return tmp_path / "score.py"


@pytest.fixture(scope="module")
def model(ws, tmp_path_factory) -> Model:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("model"))
        joblib.dump([1], "held.pkl")
        return Model.register(ws, "held.pkl", "preflight")


def environment_of(*packages: str) -> Environment:
    environment = Environment("of")
    environment.python.conda_dependencies = CondaDependencies.create(
        pip_packages=["azureml-defaults", *packages]
    )
    return environment


# Names


@pytest.mark.parametrize("name", ["abc", "sklearn-mnist-svc3", "a" * 32])
def test_good_names(name):
    check_name(name)


@pytest.mark.parametrize("name", ["", "ab", "Abc", "3abc", "abc-", "a_b", "a" * 33, "abc\n", "äbc"])
def test_bad_names_are_refused_as_the_sdk_would(name):
    from azureml._model_management._util import webservice_name_validation
    from azureml.exceptions import WebserviceException

    with pytest.raises(DeploymentError, match="Expected 3 to 32 lower-case letters"):
        check_name(name)
    if name != "abc\n":  # which the SDK lets through to Azure
        with pytest.raises(WebserviceException):
            webservice_name_validation(name)


# The script


@pytest.mark.parametrize(
    "source",
    [
        SOUND,
        "from elsewhere import init, run",
        "from elsewhere import *",
        "import elsewhere as init\nrun = init.run",
        "if True:\n    def init(): ...\nelse:\n    init = None\n" + "run = lambda data: data",
        "try:\n    from fast import run\nexcept ImportError:\n    def run(data): ...\n"
        "def init(): ...",
        "class Scorer:\n    def __call__(self): ...\ninit, run = Scorer(), Scorer()",
        "\ufeff" + SOUND,
        "def init(): ...\nasync def run(data): ...",
    ],
)
def test_both_functions_are_found_however_they_are_defined(script, source):
    script.write_text(source, encoding="utf-8")
    parse_script(script)


def test_a_script_in_another_encoding(script):
    script.write_bytes(b"# -*- coding: latin-1 -*-\n# gr\xf6\xdfe\n" + SOUND.encode())
    parse_script(script)


def test_the_tutorials_own_script():
    parse_script(tutorial_file("score.py"))


@pytest.mark.parametrize(
    ("source", "missing"),
    [
        ("", "init and run"),
        ("def init(): ...", "run"),
        ("def run(data): ...", "init"),
        ("class Model:\n    def init(self): ...\n    def run(self, data): ...", "init and run"),
        ("def make():\n    def init(): ...\n    def run(data): ...", "init and run"),
        ("print(init, run)", "init and run"),
    ],
)
def test_a_missing_function_is_named(script, source, missing):
    script.write_text(source)
    with pytest.raises(DeploymentError, match=f"does not define {missing}\\. Expected are init"):
        parse_script(script)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (b"def init(:", r"score\.py, line 1"),
        (b"def init():\nreturn 1", "line 2"),
        (b"def run(a, a): ...", "duplicate argument 'a'"),
        (b"return 1", "'return' outside function"),
        (b"\xff\xfe\x00", "encoding"),
        (b"def init(): ...\0", "null byte"),
        (b"print 'Python 2'", "Missing parentheses"),
    ],
)
def test_what_does_not_compile_is_refused_with_the_line(script, source, said):
    script.write_bytes(source)
    with pytest.raises(DeploymentError, match=said) as raised:
        parse_script(script)
    assert str(script) in str(raised.value)


def test_the_script_is_not_run(script, tmp_path):
    script.write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n" + SOUND)
    parse_script(script)
    assert not (tmp_path / "ran").exists()


def test_a_script_that_is_gone(script):
    with pytest.raises(DeploymentError, match=r"cannot be compiled: .*No such file"):
        parse_script(script)


# The model's file


def check_files(script: Path, source: str, models: list[Model], **kwargs) -> None:
    script.write_text(SOUND + source)
    check_model_files(script, ast.parse(script.read_text()), models, **kwargs)


@pytest.mark.parametrize(
    "source",
    [
        "path = os.path.join(folder, 'held.pkl')",
        "path = folder / 'outputs/held.pkl'",
        "path = folder / ('held.pkl' if new else 'other.pkl')",
        "path = 'no file at all'",
        "'''Loads other.pkl from the folder.'''",
        "path = glob(folder + '/*.pkl')",
        "path = f'{name}_model.pkl'",
        "path = name + '_model.pkl'",
        "path = '%s_model.pkl' % name",
        "suffix = '.pkl'",
    ],
)
def test_scripts_that_may_find_their_file(script, model, source):
    check_files(script, source, [model])


def test_a_file_that_is_in_no_model_is_refused(script, model):
    with pytest.raises(DeploymentError) as raised:
        check_files(script, "path = os.path.join(folder, 'sklearn_mnist_model.pkl')", [model])
    assert "loads sklearn_mnist_model.pkl, but the model holds held.pkl." in str(raised.value)
    with pytest.raises(DeploymentError, match="but the model holds no file"):
        check_files(script, "path = 'any.joblib'", [])


def test_any_of_several_models_may_hold_it(script, model, ws):
    joblib.dump([2], "second.pkl")
    second = Model.register(ws, "second.pkl", "preflight-second")
    check_files(script, "paths = 'second.pkl', 'third.pkl'", [model, second])


def test_it_may_lie_beside_the_script(script, model, tmp_path):
    (tmp_path / "parts").mkdir()
    joblib.dump([3], tmp_path / "parts" / "scaler.pkl")
    check_files(script, "path = 'scaler.pkl'", [model], source_directory=str(tmp_path))


def test_a_model_that_is_gone_is_told(script, ws):
    joblib.dump([4], "gone.pkl")
    gone = Model.register(ws, "gone.pkl", "gone")
    gone.delete()
    with pytest.raises(
        DeploymentError, match=f"Model {gone.id} cannot be looked into: .*registered"
    ):
        check_files(script, "path = 'gone.pkl'", [gone])


# Versions


def trained(version: str | None, model_framework: str | None = None) -> Model:
    model = Model(workspace=None)
    model.id = "some:1"
    model.properties = {"scikit-learn": version} if version and not model_framework else {}
    model.model_framework, model.model_framework_version = model_framework, version
    return model


@pytest.mark.parametrize(
    ("version", "packages"),
    [
        ("1.6.1", ["scikit-learn==1.6.1"]),
        ("1.6.0", ["scikit-learn==1.6.1"]),  # patch releases read each other's pickles
        ("1.6.1", ["scikit-learn==1.6.*"]),
        ("1.6.1", ["scikit-learn>=1.5"]),
        ("1.6.1", ["scikit-learn"]),
        ("1.6.1", ["numpy"]),
        (None, ["scikit-learn==1.6.1"]),
    ],
)
def test_versions_that_may_agree(version, packages):
    check_version(trained(version), environment_of(*packages))


@pytest.mark.parametrize("framework", [None, "ScikitLearn"])
@pytest.mark.parametrize("asked", ["==1.5.2", "==1.5.*", ">=1.7", "<1.6"])
def test_versions_that_cannot_agree_are_refused(asked, framework):
    with pytest.raises(DeploymentError) as raised:
        check_version(trained("1.6.1", framework), environment_of(f"scikit-learn{asked}"))
    assert str(raised.value).startswith(
        "Model some:1 was saved by scikit-learn 1.6.1, but the environment 'of' installs "
        f"scikit-learn{asked}: "
    )


def test_another_framework_is_not_compared():
    check_version(trained("2.0", "TensorFlow"), environment_of("scikit-learn==1.6.1"))


# Imports


@pytest.mark.parametrize(
    ("source", "packages", "missing"),
    [
        ("import numpy as np, json", ["numpy"], []),
        ("from sklearn.svm import SVC", ["scikit-learn"], []),
        ("import numpy, joblib", ["scikit-learn"], []),  # which brings them
        ("import msgspec", ["scikit-learn"], ["msgspec"]),
        ("def init():\n    import msgspec.json", ["scikit-learn"], ["msgspec"]),
        ("from azureml.core import Model", [], []),
        ("import flask, azureml_inference_server_http", [], []),
        ("import sklearn", [], ["sklearn"]),
        ("import nobody_knows", ["numpy"], []),
        ("import beside, folder_beside.part", ["numpy"], []),
        ("from . import other", ["numpy"], []),
        ("try:\n    import msgspec\nexcept ImportError:\n    msgspec = None", ["numpy"], []),
        ("import msgspec", ["Scikit_Learn", "MsgSpec==0.18"], []),
    ],
)
def test_imports_that_the_environment_does_not_bring(tmp_path, source, packages, missing):
    (tmp_path / "beside.py").touch()
    (tmp_path / "folder_beside").mkdir()
    environment = environment_of(*packages)
    assert find_missing(ast.parse(source), tmp_path, environment) == missing


def test_the_server_that_calls_the_script_is_needed_too(tmp_path):
    environment = environment_of("numpy")
    environment.python.conda_dependencies.remove_pip_package("azureml-defaults")
    missing = find_missing(ast.parse("import numpy"), tmp_path, environment)
    assert missing == ["azureml_inference_server_http"]


def test_an_environment_that_lists_nothing_is_not_judged(tmp_path):
    environment = environment_of()
    environment.python.user_managed_dependencies = True
    assert find_missing(ast.parse("import msgspec"), tmp_path, environment) == []


def test_the_tutorials_environment_brings_what_the_tutorials_script_imports():
    script = tutorial_file("score.py")
    tree = ast.parse(script.read_text())
    assert {"msgspec", "sklearn", "numpy"} <= set(imported_modules(tree))
    assert find_missing(tree, script.parent, build_scoring_environment()) == []


# All together


def test_a_sound_deployment_passes_in_silence(model, script, capsys):
    script.write_text(SOUND + "path = 'held.pkl'")
    check_deployment("abc", [model], build_inference_config(environment_of("numpy"), script))
    beside = InferenceConfig("score.py", source_directory=str(script.parent))
    check_deployment("abc", [model], beside)
    assert capsys.readouterr().out == ""


def test_a_missing_package_is_noted(model, script, capsys):
    script.write_text(SOUND + "import msgspec, numpy")
    check_deployment("abc", [model], build_inference_config(environment_of("numpy"), script))
    assert capsys.readouterr().out == (
        "Note: score.py needs msgspec, which the environment 'of' does not seem to install; "
        "on Azure it would not start.\n"
    )


def test_a_script_that_was_broken_after_it_was_configured(model, script):
    script.write_text(SOUND)
    configured = build_inference_config(environment_of("numpy"), script)
    script.write_text("def init(:")
    with pytest.raises(DeploymentError, match="cannot be compiled"):
        check_deployment("abc", [model], configured)
