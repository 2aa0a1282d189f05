"""Environments, registered and fetched by the genuine SDK."""

from __future__ import annotations

import uuid

import pytest
from azureml.core import Environment, Model
from azureml.core.conda_dependencies import CondaDependencies
from azureml.core.model import InferenceConfig
from azureml.core.webservice import AciWebservice
from weights_service import WORKSPACE

ENVIRONMENTS = f"/environment/v1.0{WORKSPACE}/environments"


def small():
    return AciWebservice.deploy_configuration(cpu_cores=1, memory_gb=1)


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


def test_fetched_environment_can_be_changed_registered_and_copied(local_ws, name):
    build(name, "numpy==1").register(local_ws)
    fetched = Environment.get(local_ws, name)
    assert fetched.register(local_ws).version == "1"
    fetched.clone(f"{name}-copy").register(local_ws)
    assert pip_packages(Environment.get(local_ws, f"{name}-copy")) == ["numpy==1"]
    fetched.python.conda_dependencies.add_pip_package("joblib==1.4")
    with pytest.raises(Exception, match=r"Version 1 of environment .* already"):
        fetched.register(local_ws)
    fetched.version = None
    assert fetched.register(local_ws).version == "2"
    assert pip_packages(Environment.get(local_ws, name)) == ["numpy==1", "joblib==1.4"]


def test_private_wheel_is_rejected(local_ws, tmp_path):
    (wheel := tmp_path / "mine-1.0-py3-none-any.whl").write_bytes(b"")
    with pytest.raises(Exception, match="does not support private pip wheels"):
        Environment.add_private_pip_wheel(local_ws, str(wheel))


@pytest.mark.parametrize("bad", ["..", ".hidden", "a%2Fb", "a b", "a" * 256, "%2e%2e%2fup", "é"])
def test_environment_name_that_azure_rejects_is_rejected(call, bad):
    answer = call("PUT", f"{ENVIRONMENTS}/{bad}", json={"python": {}})
    assert answer.status_code in (400, 501)
    assert answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("definition", "reason"),
    [
        ({"environmentVariables": {"A=B": "x"}}, "a name without '='"),
        ({"environmentVariables": {"WORKER_COUNT": "²"}}, "a number from 1 to"),
        ({"python": {"condaDependencies": {"dependencies": [{"pip": ["two words"]}]}}},
         "pip cannot read the requirement 'two words'"),
    ],
)  # fmt: skip
def test_environment_with_invalid_variables_or_packages_is_rejected(call, name, definition, reason):
    answer = call("PUT", f"{ENVIRONMENTS}/{name}", json=definition)
    assert answer.status_code == 400
    assert reason in answer.json()["error"]["message"]
    assert call("GET", f"{ENVIRONMENTS}/{name}").status_code == 404


def test_curated_environment_is_replaced_by_the_running_python(
    local_ws, registered, tmp_path, capsys
):
    """Article "Azure Machine Learning curated environments"; the tutorial's edition of 2022."""
    curated = "AzureML-sklearn-0.24-ubuntu18.04-py37-cpu"
    environment = Environment.get(local_ws, curated)
    assert environment.name == curated
    (tmp_path / "score.py").write_text("def init(): pass\ndef run(raw): return 1\n")
    config = InferenceConfig("score.py", source_directory=str(tmp_path), environment=environment)
    service = Model.deploy(local_ws, "curated", [registered], config, small())
    service.wait_for_deployment(show_output=True)
    shown, log = capsys.readouterr().out, service.get_logs()
    service.delete()
    for warning in (f"{curated} belongs to a curated environment of Azure", "runs in this Python"):
        assert warning in shown
        assert warning in log
    copied = environment.clone("AzureML-mine")
    with pytest.raises(Exception, match="AzureML"):
        copied.register(local_ws)
    environment.clone("mine-of-curated").register(local_ws)


def test_unsupported_build_is_answered_501_with_its_name(local_ws, name):
    environment = build(name).register(local_ws)
    with pytest.raises(Exception, match=r"does not support Environment\.build"):
        environment.build(local_ws)
