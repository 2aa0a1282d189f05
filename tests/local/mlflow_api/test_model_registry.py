"""MLflow's model registry by the genuine clients: its versions are models of both SDKs."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from mnist_deploy import local

pytestmark = pytest.mark.processes

CLIENT = Path(__file__).with_name("registry_client.py")
WAIT = 240  # seconds


@pytest.fixture(scope="module")
def registered(request, endpoint, local_ws) -> str:
    """The name of the model that the client's script has registered."""
    pytest.importorskip("mlflow")
    is_azure = request.param == "azureml-mlflow"
    if is_azure:
        pytest.importorskip("azureml.mlflow")
    name = f"registry-{uuid.uuid4().hex[:8]}"
    uri = local_ws.get_mlflow_tracking_uri() if is_azure else ""
    done = subprocess.run(
        [sys.executable, str(CLIENT), uri, name],
        env=os.environ | endpoint.environment(),
        capture_output=True,
        text=True,
        timeout=WAIT,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return name


@pytest.mark.parametrize("registered", ["mlflow", "azureml-mlflow"], indirect=True)
def test_versions_that_mlflow_registers_are_models_of_azureml_core(registered, local_ws, tmp_path):
    from azureml.core import Model

    model = Model(local_ws, registered, version=1)
    assert (model.description, model.tags) == ("My classifier", {"type": "regression"})
    assert model.run.get_status() == "Completed"
    assert (Path(model.download(str(tmp_path))) / "MLmodel").is_file()
    assert [each.version for each in Model.list(local_ws, name=registered)] == [3, 1]


@pytest.mark.parametrize("registered", ["mlflow"], indirect=True)
def test_versions_that_mlflow_registers_are_mlflow_models_of_sdk_v2(registered, local_home):
    pytest.importorskip("azure.ai.ml")
    model = local.connect_client(local_home).models.get(registered, label="latest")
    assert (str(model.version), model.type) == ("3", "mlflow_model")
