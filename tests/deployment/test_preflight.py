"""What is refused before anything is sent, and what is not refused although it looks odd."""

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
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
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


# Names


@pytest.mark.parametrize(
    ("name", "good"),
    [
        *((name, True) for name in ("abc", "sklearn-mnist-svc3", "a" * 32)),
        *((name, False) for name in ("", "ab", "Abc", "3abc", "abc-", "a_b", "a" * 33, "äbc")),
        ("abc\n", False),
    ],
)
def test_names_are_taken_and_refused_as_the_sdk_would(name, good):
    from azureml._model_management._util import webservice_name_validation
    from azureml.exceptions import WebserviceException

    with contextlib.nullcontext() if good else pytest.raises(DeploymentError, match="Expected 3 t"):
        check_name(name)
    if name != "abc\n":  # which the SDK lets through to Azure
        with contextlib.nullcontext() if good else pytest.raises(WebserviceException):
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
    check_script(script)


def test_the_tutorials_own_script_and_one_in_another_encoding(script):
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
def test_a_missing_function_is_named(script, source, missing):
    script.write_text(source)
    with pytest.raises(DeploymentError, match=f"does not define {missing}\\. Expected are init"):
        check_script(script)


@pytest.mark.parametrize(
    ("source", "said"),
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
def test_what_does_not_compile_is_refused_with_the_line(script, source, said):
    script.write_bytes(source)
    with pytest.raises(DeploymentError, match=said) as raised:
        check_script(script)
    assert str(script) in str(raised.value)


def test_the_script_is_not_run(script, tmp_path):
    script.write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n" + SOUND)
    check_script(script)
    assert not (tmp_path / "ran").exists()
    script.unlink()
    with pytest.raises(DeploymentError, match=r"cannot be compiled: .*No such file"):
        check_script(script)


# Versions


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
def test_versions_that_may_agree(model, package):
    check_version(trained(*model), environment_of(package))


@pytest.mark.parametrize("framework", [None, "ScikitLearn"])
@pytest.mark.parametrize("asked", ["==1.5.2", "==1.5.*", ">=1.7", "<1.6"])
def test_versions_that_cannot_agree_are_refused(asked, framework):
    with pytest.raises(DeploymentError) as raised:
        check_version(trained("1.6.1", framework), environment_of(f"scikit-learn{asked}"))
    assert str(raised.value).startswith(
        "Model some:1 was saved by scikit-learn 1.6.1, but the environment 'of' installs "
        f"scikit-learn{asked}: "
    )


# All together


def test_a_sound_deployment_passes_in_silence(script, capsys):
    script.write_text(SOUND + "path = 'a_cache.pkl'")  # which may be no file of the model's
    configured = build_inference_config(environment_of("numpy"), script)
    beside = InferenceConfig("score.py", source_directory=str(script.parent))
    for each in (configured, beside):
        check_deployment("abc", [trained("1.6.1")], each)
    assert capsys.readouterr().out == ""
    script.write_text("def init(:")  # after it was configured
    with pytest.raises(DeploymentError, match="cannot be compiled"):
        check_deployment("abc", [trained("1.6.1")], configured)
