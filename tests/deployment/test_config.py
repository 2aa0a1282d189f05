"""`build_inference_config` and `build_aci_config`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from azureml.core import Environment
from azureml.core.model import InferenceConfig

from mnist_deploy import build_aci_config, build_inference_config
from mnist_deploy.errors import DeploymentError
from mnist_deploy.tutorial import tutorial_file

SOUND = "def init():\n    pass\n\ndef run(data):\n    return data\n"


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_tutorials_script_is_used_only_without_a_score_py(tmp_path, capsys):
    script = build_inference_config(Environment("e")).entry_script
    assert Path(script) == tutorial_file("score.py")
    assert capsys.readouterr().out == (
        "There is no score.py in this folder: the tutorial's score.py is deployed.\n"
    )
    (tmp_path / "score.py").write_text(SOUND)
    config = build_inference_config(Environment("e"))
    assert type(config) is InferenceConfig
    assert (config.entry_script, config.source_directory) == ("score.py", None)
    assert config.environment.name == "e"
    assert capsys.readouterr().out == ""


def test_source_directory_holds_the_script(tmp_path):
    (tmp_path / "source" / "deep").mkdir(parents=True)
    (tmp_path / "source" / "deep" / "mine.py").write_text(SOUND)
    config = build_inference_config(Environment("e"), "deep/mine.py", tmp_path / "source")
    assert config.entry_script == "deep/mine.py"
    assert config.source_directory == str((tmp_path / "source").resolve())
    with pytest.raises(DeploymentError, match=r"no scoring script score\.py in source\. Expected"):
        build_inference_config(Environment("e"), source_directory="source")


@pytest.mark.parametrize(
    ("name", "source", "message"),
    [
        ("nowhere.py", None, r"no scoring script nowhere\.py in this folder"),
        ("mine.py", "def init(): ...", "does not define run"),
        pytest.param(
            "mine.py",
            f"# coding: latin-1\n# \xe9\n{SOUND}",
            r"cannot be deployed: 'utf-8' codec",
            marks=pytest.mark.skipif(sys.platform == "win32", reason="the SDK reads cp1252 there"),
        ),
        ("mine.txt", SOUND, r"mine\.txt cannot be deployed: Invalid driver type"),
    ],
)
def test_invalid_script_is_rejected(tmp_path, name, source, message):
    if source:
        (tmp_path / name).write_text(source, "latin-1")
    with pytest.raises(DeploymentError, match=message):
        build_inference_config(Environment("e"), name)


def test_aci_config_passes_all_options_of_the_sdk():
    config = build_aci_config()
    assert (config.cpu_cores, config.memory_gb, config.auth_enabled) == (1, 1, None)
    assert (config.tags, config.description) == (None, "")
    config = build_aci_config(0.5, 1.5, {}, "mine", auth_enabled=True, location="westeurope")
    assert (config.cpu_cores, config.memory_gb, config.tags) == (0.5, 1.5, {})
    assert (config.description, config.auth_enabled) == ("mine", True)
    assert config.location == "westeurope"
    assert json.dumps(build_aci_config(np.int64(1), np.float32(1.5)).memory_gb) == "1.5"
    with pytest.raises(TypeError, match="cpus"):
        build_aci_config(cpus=2)
    with pytest.raises(DeploymentError, match="not valid: SSL is enabled, you must provide"):
        build_aci_config(ssl_enabled=True)


@pytest.mark.parametrize("value", [0, -1, "1", None, float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["cpu_cores", "memory_gb"])
def test_invalid_size_is_rejected(name, value):
    with pytest.raises(DeploymentError, match=f"{name} is .*; expected a number above 0"):
        build_aci_config(**{name: value})
