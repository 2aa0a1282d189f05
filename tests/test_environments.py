"""The scoring environment: fetched, built with its pins, and how those of others are read."""

from __future__ import annotations

import sys
import threading
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml
from azureml.core import Environment
from azureml.core.conda_dependencies import CondaDependencies
from packaging.requirements import Requirement

from mnist_deploy import environments, fetch_environment
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


def of(*conda: str, pip: tuple[str, ...] = ()) -> Environment:
    environment = Environment("of")
    dependencies = CondaDependencies()
    for entry in conda:
        dependencies.add_conda_package(entry)
    for line in pip:
        dependencies.add_pip_package(line)
    environment.python.conda_dependencies = dependencies
    return environment


def test_pins_what_is_installed_here():
    environment = build_scoring_environment()
    assert environment.name == "tutorial-env"
    for package in ("scikit-learn", "numpy", "joblib", "msgspec"):
        assert pinned_version(environment, package) == version(package)
    assert f"python={PYTHON}" in environment.python.conda_dependencies.serialize_to_string()


def test_pins_no_python_that_the_container_has_no_packages_for(monkeypatch):
    monkeypatch.setattr(environments, "_NEWEST_PYTHON", (3, 9))
    text = build_scoring_environment().python.conda_dependencies.serialize_to_string()
    assert "- python=3.9\n" in text


def test_what_is_not_installed_here_keeps_the_pin_of_the_file():
    text = tutorial_file("environment.yml").read_text()
    line = next(line for line in text.splitlines() if "azureml-defaults" in line)
    assert line.split("- ")[1] in pip_lines(build_scoring_environment())


def test_names_the_packages_of_the_file_and_no_others():
    specification = yaml.safe_load(tutorial_file("environment.yml").read_text())
    (pip_section,) = [each for each in specification["dependencies"] if isinstance(each, dict)]
    expected = {Requirement(line).name for line in pip_section["pip"]}
    assert {Requirement(line).name for line in pip_lines(build_scoring_environment())} == expected


def test_the_version_that_saved_the_model_can_be_given():
    environment = build_scoring_environment("older", scikit_learn="1.6.1")
    assert environment.name == "older"
    assert pinned_version(environment, "scikit-learn") == "1.6.1"
    assert pinned_version(environment, "numpy") == version("numpy")


def test_registered_and_fetched_it_is_the_same(ws):
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
def test_condas_own_way_of_pinning(entry, specifier, pinned):
    environment = of(entry)
    assert str(find_requirement(environment, "scikit-learn").specifier) == specifier
    assert pinned_version(environment, "scikit-learn") == pinned


def test_what_is_not_named_is_not_found():
    environment = of("numpy=1.26", "python=3.8", pip=("./mine.whl", "scikit-learn-extra==0.3"))
    assert find_requirement(environment, "scikit-learn") is None
    assert pinned_version(environment, "scikit-learn") is None
    assert find_requirement(environment, "scikit-learn-extra").specifier.contains("0.3")


def test_an_image_of_ones_own_is_not_judged_by_the_default_packages():
    environment = of("scikit-learn=1.5")
    environment.python.user_managed_dependencies = True
    assert find_requirement(environment, "scikit-learn") is None


def test_every_pin_of_the_file_is_exact():
    """A container that is built next year must be the one that was tested."""
    text = Path(tutorial_file("environment.yml")).read_text()
    entries = yaml.safe_load(text)["dependencies"]
    (pip_section,) = [entry for entry in entries if isinstance(entry, dict)]
    assert all("==" in line for line in pip_section["pip"])
    assert all("=" in entry for entry in entries if entry is not pip_section)


# Fetched from a workspace


def test_fetches_the_newest_environment_or_a_version(ws):
    for package in ("numpy", "scipy"):
        environment = Environment("fetched-env")
        environment.python.conda_dependencies.add_pip_package(package)
        environment.register(ws)
    newest = fetch_environment(ws, "fetched-env")
    assert (newest.name, newest.version) == ("fetched-env", "2")
    assert "scipy" in newest.python.conda_dependencies.serialize_to_string()
    assert fetch_environment(ws, "fetched-env", version="1").version == "1"


def test_a_missing_environment_is_told_with_what_there_is(ws):
    Environment("present-env").register(ws)
    Environment("AzureML-Curated").register(ws)
    with pytest.raises(EnvironmentNotFound) as raised:
        fetch_environment(ws, "absent-env")
    message = str(raised.value)
    assert message.startswith("Environment 'absent-env' is not registered in workspace 'local'.")
    assert "present-env:1" in message
    assert "AzureML-Curated" not in message
    with pytest.raises(EnvironmentNotFound, match="Version 9 of environment 'present-env' is not"):
        fetch_environment(ws, "present-env", version="9")


def test_an_address_with_404_in_it_is_no_missing_environment(ws, monkeypatch):
    def refuse(*_, **__):
        raise ConnectionError("HTTPSConnectionPool(host='127.0.0.1', port=40404): broken")

    monkeypatch.setattr(Environment, "get", refuse)
    with pytest.raises(WorkspaceError, match="could not fetch the environment"):
        fetch_environment(ws, "any")


def test_a_workspace_that_does_not_answer(ws, monkeypatch):
    """The SDK waits for an environment without any limit."""
    never = threading.Event()
    monkeypatch.setattr(Environment, "get", lambda *_, **__: never.wait(60))
    monkeypatch.setattr(environments, "ANSWER_LIMIT", 0.2)
    with pytest.raises(WorkspaceError, match=r"could not fetch the environment 'x'.*within 0\.2 s"):
        fetch_environment(ws, "x")
    never.set()
