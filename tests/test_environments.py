"""Environments: fetched, built with pins, and their pins read."""

from __future__ import annotations

import sys
import time
from importlib.metadata import version
from types import SimpleNamespace

import pytest
import requests
import yaml
from azureml.core import Environment
from azureml.core.conda_dependencies import CondaDependencies
from packaging.requirements import Requirement

from mnist_deploy import environments, fetch_environment, sdk
from mnist_deploy.environments import (
    build_scoring_environment,
    find_requirement,
    pinned_version,
)
from mnist_deploy.errors import EnvironmentNotFound, WorkspaceError
from mnist_deploy.tutorial import tutorial_file

PYTHON = "{}.{}".format(*min(sys.version_info[:2], (3, 13)))


def pip_lines(environment: Environment) -> list[str]:
    return list(environment.python.conda_dependencies.pip_packages)


def build(*conda: str, pip: tuple[str, ...] = ()) -> Environment:
    environment = Environment("built")
    dependencies = CondaDependencies()
    for entry in conda:
        dependencies.add_conda_package(entry)
    for line in pip:
        dependencies.add_pip_package(line)
    environment.python.conda_dependencies = dependencies
    return environment


def test_environment_pins_the_installed_versions_of_the_files_packages(monkeypatch):
    """A package that is not installed keeps the pin of the file; Python is limited."""
    *_, pip_section = yaml.safe_load(tutorial_file("environment.yml").read_text())["dependencies"]
    pins = {Requirement(line).name: line for line in pip_section["pip"]}
    environment = build_scoring_environment()
    assert environment.name == "tutorial-env"
    assert {Requirement(line).name for line in pip_lines(environment)} == pins.keys()
    for package in ("scikit-learn", "numpy", "joblib", "msgspec"):
        assert pinned_version(environment, package) == version(package)
    assert pins["azureml-defaults"] in pip_lines(environment)
    assert f"python={PYTHON}" in environment.python.conda_dependencies.serialize_to_string()
    monkeypatch.setattr(environments, "_NEWEST_PYTHON", (3, 9))
    text = build_scoring_environment().python.conda_dependencies.serialize_to_string()
    assert "- python=3.9\n" in text


def test_scikit_learn_can_be_pinned_to_another_version():
    environment = build_scoring_environment("older", scikit_learn="1.6.1")
    assert environment.name == "older"
    assert pinned_version(environment, "scikit-learn") == "1.6.1"
    assert pinned_version(environment, "numpy") == version("numpy")


def test_fetched_environment_equals_the_registered_one(ws):
    registered = build_scoring_environment("round-trip").register(ws)
    fetched = Environment.get(ws, "round-trip")
    assert sorted(pip_lines(fetched)) == sorted(pip_lines(build_scoring_environment()))
    assert registered.version == fetched.version == "1"


@pytest.mark.parametrize(
    ("entry", "specifier", "pinned"),
    [
        ("scikit-learn", "", None),
        ("scikit-learn=1.5", "==1.5.*", "1.5"),
        ("scikit-learn=1.5.*", "==1.5.*", "1.5"),
        ("scikit-learn==1.5.2", "==1.5.2", "1.5.2"),
        ("scikit-learn=1.5.2=py311_0", "==1.5.2.*", "1.5.2"),
        ("scikit-learn 1.5.2 py311_0", "==1.5.2.*", "1.5.2"),
        ("conda-forge::scikit-learn=1.10", "==1.10.*", "1.10"),
        ("scikit-learn>=1.5,<1.6", "<1.6,>=1.5", None),
        ("scikit-learn >=1.5", ">=1.5", None),
    ],
)
def test_syntax_of_conda_is_converted(entry, specifier, pinned):
    environment = build(entry)
    assert str(find_requirement(environment, "scikit-learn").specifier) == specifier
    assert pinned_version(environment, "scikit-learn") == pinned


def test_package_that_is_not_named_has_no_requirement():
    environment = build("numpy=1.26", "python=3.8", pip=("./mine.whl", "scikit-learn-extra==0.3"))
    assert find_requirement(environment, "scikit-learn") is None
    assert pinned_version(environment, "scikit-learn") is None
    assert find_requirement(environment, "scikit-learn-extra").specifier.contains("0.3")
    own_image = build("scikit-learn=1.5")
    own_image.python.user_managed_dependencies = True  # the packages are part of the image
    assert find_requirement(own_image, "scikit-learn") is None


def test_pins_of_the_file_are_exact():
    """So that a container that is built later has the tested versions."""
    specification = yaml.safe_load(tutorial_file("environment.yml").read_text())
    *conda, pip_section = specification["dependencies"]
    assert all("==" in line for line in pip_section["pip"])
    assert all("=" in entry for entry in conda)


# --- fetched from a workspace ---


def test_fetch_environment_returns_the_newest_or_a_version(ws):
    for package in ("numpy", "scipy"):
        environment = Environment("fetched-env")
        environment.python.conda_dependencies.add_pip_package(package)
        environment.register(ws)
    newest = fetch_environment(ws, "fetched-env")
    assert (newest.name, newest.version) == ("fetched-env", "2")
    assert "scipy" in newest.python.conda_dependencies.serialize_to_string()
    assert fetch_environment(ws, "fetched-env", version="1").version == "1"


def test_missing_environment_is_reported_with_the_registered_ones(ws, monkeypatch):
    """Without the curated environments of Azure, whose names begin with AzureML-."""
    Environment("present-env").register(ws)
    listed = Environment.list(ws) | {
        "AzureML-Curated": SimpleNamespace(name="AzureML-Curated", version="1")
    }
    monkeypatch.setattr(Environment, "list", lambda _: listed)
    with pytest.raises(EnvironmentNotFound) as raised:
        fetch_environment(ws, "absent-env")
    message = str(raised.value)
    assert message.startswith("Environment 'absent-env' is not registered in workspace 'local'.")
    assert "present-env:1" in message
    assert "AzureML-Curated" not in message
    with pytest.raises(EnvironmentNotFound, match="Version 9 of environment 'present-env' is not"):
        fetch_environment(ws, "present-env", version="9")
    with pytest.raises(EnvironmentNotFound, match="Environment '' is not registered"):
        fetch_environment(ws, "")


@pytest.mark.parametrize(
    ("get", "message"),
    [
        (
            lambda *_, **__: requests.get("http://127.0.0.1:404/x"),
            "127.0.0.1:404 cannot be reached",
        ),
        (lambda *_, **__: time.sleep(1), r"within 0\.2 s"),  # the SDK has no time-out
    ],
)
def test_workspace_that_does_not_respond_is_a_workspace_error(ws, monkeypatch, get, message):
    monkeypatch.setattr(Environment, "get", get)
    monkeypatch.setattr(sdk, "RESPONSE_TIMEOUT", 0.2)
    with pytest.raises(WorkspaceError, match=f"could not fetch the environment 'x'.*{message}"):
        fetch_environment(ws, "x")
