"""Checks before a deployment: what is rejected, and what is valid although it looks odd."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from azureml.core import Environment, Model
from azureml.core.conda_dependencies import CondaDependencies
from azureml.core.model import InferenceConfig

from mnist_deploy import build_inference_config
from mnist_deploy.deployment.preflight import (
    check_deployment,
    check_name,
    check_script,
    check_version,
)
from mnist_deploy.errors import DeploymentError
from mnist_deploy.tutorial import tutorial_file

SOUND = "def init():\n    pass\n\ndef run(data):\n    return data\n"


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def script(tmp_path) -> Path:
    return tmp_path / "score.py"


def environment_of(*packages: str) -> Environment:
    environment = Environment("of")
    environment.python.conda_dependencies = CondaDependencies.create(
        pip_packages=["azureml-defaults", *packages]
    )
    return environment


# --- names ---


@pytest.mark.parametrize(
    ("name", "is_valid"),
    [
        *((name, True) for name in ("abc", "sklearn-mnist-svc3", "a" * 32)),
        *((name, False) for name in ("", "ab", "Abc", "3abc", "abc-", "a_b", "a" * 33, "äbc")),
        ("abc\n", False),
    ],
)
def test_name_is_valid_as_by_the_sdk(name, is_valid):
    from azureml._model_management._util import webservice_name_validation
    from azureml.exceptions import WebserviceException

    with (
        contextlib.nullcontext()
        if is_valid
        else pytest.raises(DeploymentError, match="Expected 3 t")
    ):
        check_name(name)
    if name != "abc\n":  # which the SDK accepts
        with contextlib.nullcontext() if is_valid else pytest.raises(WebserviceException):
            webservice_name_validation(name)


# --- the script ---


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
def test_init_and_run_may_be_defined_in_any_way(script, source):
    script.write_text(source, encoding="utf-8")
    check_script(script)


def test_script_may_have_another_encoding(script):
    check_script(tutorial_file("score.py"))
    script.write_bytes(b"# -*- coding: latin-1 -*-\n# gr\xf6\xdfe\n" + SOUND.encode())
    check_script(script)


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
def test_missing_function_is_named(script, source, missing):
    script.write_text(source)
    with pytest.raises(DeploymentError, match=f"does not define {missing}\\. Expected are init"):
        check_script(script)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (b"def init(:", r"score\.py, line 1"),
        (b"def init():\nreturn 1", "line 2"),
        (b"def run(a, a): ...", "duplicate (argument|parameter) 'a'"),
        (b"return 1", "return.* outside function"),
        (b"\xff\xfe\x00", "encoding|null byte"),
        (b"def init(): ...\0", "null byte"),
        (b"print 'Python 2'", "Missing parentheses"),
    ],
)
def test_script_that_does_not_compile_is_rejected_with_the_line(script, source, message):
    script.write_bytes(source)
    with pytest.raises(DeploymentError, match=message) as raised:
        check_script(script)
    assert str(script) in str(raised.value)


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("score.py", "from utils import load"),
        ("score.py", "import config.paths"),
        ("routes.py", ""),
    ],
)
def test_module_that_microsofts_server_hides_is_warned_of(tmp_path, name, line):
    """The folder of azureml_inference_server_http comes before the script's on sys.path."""
    script = tmp_path / name
    script.write_text(f"{line}\n{SOUND}")
    with pytest.warns(UserWarning, match=r"module '(utils|config|routes)' .*Rename the module"):
        check_script(script)


def test_script_is_not_executed(script, tmp_path):
    script.write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n" + SOUND)
    check_script(script)
    assert not (tmp_path / "ran").exists()
    script.unlink()
    with pytest.raises(DeploymentError, match=r"cannot be compiled: .*No such file"):
        check_script(script)


# --- versions of scikit-learn ---


def trained(version: str | None, model_framework: str | None = None) -> Model:
    model = Model(workspace=None)
    model.id = "some:1"
    model.properties = {"scikit-learn": version} if version and not model_framework else {}
    model.model_framework, model.model_framework_version = model_framework, version
    return model


@pytest.mark.parametrize(
    ("model", "package"),
    [
        (("1.6.1",), "scikit-learn==1.6.1"),
        (("1.6.0",), "scikit-learn==1.6.1"),  # patch releases read each other's pickles
        (("1.6.1",), "scikit-learn==1.6.*"),
        (("1.6.1",), "scikit-learn>=1.5"),
        (("1.6.1",), "scikit-learn"),
        (("1.6.1",), "numpy"),
        ((None,), "scikit-learn==1.6.1"),
        (("2.0", "TensorFlow"), "scikit-learn==1.6.1"),
    ],
)
def test_compatible_versions_are_accepted(model, package):
    check_version(trained(*model), environment_of(package))


@pytest.mark.parametrize("framework", [None, "ScikitLearn"])
@pytest.mark.parametrize("required", ["==1.5.2", "==1.5.*", ">=1.7", "<1.6"])
def test_incompatible_versions_are_rejected(required, framework):
    with pytest.raises(DeploymentError) as raised:
        check_version(trained("1.6.1", framework), environment_of(f"scikit-learn{required}"))
    assert str(raised.value).startswith(
        "Model some:1 was saved by scikit-learn 1.6.1, but the environment 'of' installs "
        f"scikit-learn{required}: "
    )


# --- all checks ---


def test_valid_deployment_prints_nothing(script, capsys):
    script.write_text(SOUND + "path = 'a_cache.pkl'")
    configured = build_inference_config(environment_of("numpy"), script)
    beside = InferenceConfig("score.py", source_directory=str(script.parent))
    for each in (configured, beside):
        check_deployment("abc", [trained("1.6.1")], each)
    assert capsys.readouterr().out == ""
    script.write_text("def init(:")  # changed after the configuration
    with pytest.raises(DeploymentError, match="cannot be compiled"):
        check_deployment("abc", [trained("1.6.1")], configured)
