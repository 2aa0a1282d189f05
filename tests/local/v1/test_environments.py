"""Environments, registered and fetched by the genuine SDK."""

from __future__ import annotations

import uuid

import pytest
from azureml.core import Environment
from azureml.core.conda_dependencies import CondaDependencies
from weights_service import WORKSPACE

ENVIRONMENTS = f"/environment/v1.0{WORKSPACE}/environments"


@pytest.fixture
def name() -> str:
    return f"env-{uuid.uuid4().hex[:8]}"


def build(name: str, *packages: str) -> Environment:
    environment = Environment(name)
    environment.python.conda_dependencies = CondaDependencies.create(
        pip_packages=list(packages), python_version="3.11"
    )
    environment.environment_variables = {"GREETING": "hello"}
    return environment


def pip_packages(environment: Environment) -> list[str]:
    return list(environment.python.conda_dependencies.pip_packages)


def test_an_environment_comes_back_as_it_was(local_ws, name):
    registered = build(name, "numpy==1.26.4", "azureml-defaults").register(local_ws)
    fetched = Environment.get(local_ws, name)
    for environment in (registered, fetched):
        assert (environment.name, environment.version) == (name, "1")
        assert pip_packages(environment) == ["numpy==1.26.4", "azureml-defaults"]
        assert environment.environment_variables == {"GREETING": "hello"}


def test_versions_count_up_when_the_definition_changes(local_ws, name):
    assert build(name, "numpy==1").register(local_ws).version == "1"
    assert build(name, "numpy==1").register(local_ws).version == "1"
    assert build(name, "numpy==2").register(local_ws).version == "2"
    assert pip_packages(Environment.get(local_ws, name)) == ["numpy==2"]
    assert pip_packages(Environment.get(local_ws, name, version="1")) == ["numpy==1"]


def test_a_fetched_environment_can_be_changed_and_registered(local_ws, name):
    build(name, "numpy==1").register(local_ws)
    fetched = Environment.get(local_ws, name)
    assert fetched.register(local_ws).version == "1"
    fetched.python.conda_dependencies.add_pip_package("joblib==1.4")
    with pytest.raises(Exception, match=r"version 1 of environment .* already"):
        fetched.register(local_ws)
    fetched.version = None
    assert fetched.register(local_ws).version == "2"
    assert pip_packages(Environment.get(local_ws, name)) == ["numpy==1", "joblib==1.4"]


def test_a_copy_gets_a_name_of_its_own(local_ws, name):
    build(name, "numpy==1").register(local_ws)
    Environment.get(local_ws, name).clone(name + "-copy").register(local_ws)
    assert pip_packages(Environment.get(local_ws, name + "-copy")) == ["numpy==1"]


def test_list_has_the_newest_of_each_name(local_ws, name):
    build(name, "numpy==1").register(local_ws)
    build(name, "numpy==2").register(local_ws)
    build(name + "-2").register(local_ws)
    listed = Environment.list(local_ws)
    assert {name, name + "-2"} <= listed.keys()
    assert listed[name].version == "2"


def test_a_private_wheel_is_refused(local_ws, tmp_path):
    (tmp_path / "mine-1.0-py3-none-any.whl").write_bytes(b"")
    with pytest.raises(Exception, match="does not support private pip wheels"):
        Environment.add_private_pip_wheel(local_ws, str(tmp_path / "mine-1.0-py3-none-any.whl"))


@pytest.mark.parametrize("version", [None, "1", "7"])
def test_an_environment_that_is_not_there(local_ws, name, version):
    if version == "7":
        build(name).register(local_ws)
    with pytest.raises(Exception, match=r"EnvironmentNotFound|There is no"):
        Environment.get(local_ws, name, version=version)


@pytest.mark.parametrize("bad", ["..", ".hidden", "a%2Fb", "a b", "a" * 256, "%2e%2e%2fup"])
def test_a_name_that_is_none_is_refused(call, bad):
    answer = call("PUT", f"{ENVIRONMENTS}/{bad}", json={"python": {}})
    assert answer.status_code in (400, 501), answer.text
    assert answer.json()["error"]["message"]
