"""What is refused before anything is sent, and what is not refused although it looks odd."""

from __future__ import annotations

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
    check_script(script)


def test_a_script_in_another_encoding(script):
    script.write_bytes(b"# -*- coding: latin-1 -*-\n# gr\xf6\xdfe\n" + SOUND.encode())
    check_script(script)


def test_the_tutorials_own_script():
    check_script(tutorial_file("score.py"))


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


def test_a_script_that_is_gone(script):
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


# All together


def test_a_sound_deployment_passes_in_silence(script, capsys):
    script.write_text(SOUND + "path = 'a_cache.pkl'")  # which may be no file of the model's
    check_deployment(
        "abc", [trained("1.6.1")], build_inference_config(environment_of("numpy"), script)
    )
    beside = InferenceConfig("score.py", source_directory=str(script.parent))
    check_deployment("abc", [trained("1.6.1")], beside)
    assert capsys.readouterr().out == ""


def test_a_script_that_was_broken_after_it_was_configured(script):
    script.write_text(SOUND)
    configured = build_inference_config(environment_of("numpy"), script)
    script.write_text("def init(:")
    with pytest.raises(DeploymentError, match="cannot be compiled"):
        check_deployment("abc", [trained("1.6.1")], configured)
