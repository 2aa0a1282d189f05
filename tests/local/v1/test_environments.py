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
    return environment


def pip_packages(environment: Environment) -> list[str]:
    return list(environment.python.conda_dependencies.pip_packages)


def test_a_fetched_environment_can_be_changed_registered_and_copied(local_ws, name):
    build(name, "numpy==1").register(local_ws)
    fetched = Environment.get(local_ws, name)
    assert fetched.register(local_ws).version == "1"
    fetched.clone(f"{name}-copy").register(local_ws)
    assert pip_packages(Environment.get(local_ws, f"{name}-copy")) == ["numpy==1"]
    fetched.python.conda_dependencies.add_pip_package("joblib==1.4")
    with pytest.raises(Exception, match=r"version 1 of environment .* already"):
        fetched.register(local_ws)
    fetched.version = None
    assert fetched.register(local_ws).version == "2"
    assert pip_packages(Environment.get(local_ws, name)) == ["numpy==1", "joblib==1.4"]


def test_a_private_wheel_and_a_name_that_is_none_are_refused(local_ws, call, tmp_path):
    (wheel := tmp_path / "mine-1.0-py3-none-any.whl").write_bytes(b"")
    with pytest.raises(Exception, match="does not support private pip wheels"):
        Environment.add_private_pip_wheel(local_ws, str(wheel))
    for bad in ("..", ".hidden", "a%2Fb", "a b", "a" * 256, "%2e%2e%2fup"):
        answer = call("PUT", f"{ENVIRONMENTS}/{bad}", json={"python": {}})
        assert answer.status_code in (400, 501), bad
        assert answer.json()["error"]["message"]
