"""SDK v2 on the workspace that the tests in tests/local share; other addresses get no requests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from sdk_polling import fast_polls
from weights_service import SCRIPT

from mnist_deploy import local
from mnist_deploy.local.discovery import OTHER_IDENTITIES

pytest.importorskip("azure.ai.ml")

CONDA = {"name": "weights-env", "dependencies": ["python=3.11", {"pip": ["numpy"]}]}


@pytest.fixture(scope="session", autouse=True)
def _no_other_identity():
    """Whatever goes wrong, no credential asks an address outside of this machine."""
    with pytest.MonkeyPatch.context() as patch:
        for name in OTHER_IDENTITIES:
            patch.delenv(name, raising=False)
        patch.setenv("AZURE_TOKEN_CREDENTIALS", "ManagedIdentityCredential")
        patch.setenv("MSI_ENDPOINT", "http://127.0.0.1:9/missing")
        yield


@pytest.fixture(scope="session")
def client(local_ws, local_home):
    """The genuine MLClient."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AZUREML_CURRENT_CLOUD", os.environ.get("AZUREML_CURRENT_CLOUD", "AzureCloud"))
        yield local.connect_client(local_home)


@pytest.fixture(scope="module")
def quick_job_polls():
    from azure.ai.ml.operations import _job_ops_helper

    with fast_polls(_job_ops_helper):
        yield


@pytest.fixture(scope="session")
def folder(tmp_path_factory) -> Path:
    """A model's folder ``weights`` and a script's folder ``code``: read them, do not write."""
    folder = tmp_path_factory.mktemp("v2")
    (folder / "weights").mkdir()
    (folder / "weights" / "weights.txt").write_text("1 10 100")
    (folder / "weights" / "empty").touch()
    (folder / "code").mkdir()
    (folder / "code" / "score.py").write_text(SCRIPT)
    return folder


@pytest.fixture(scope="session")
def model(client, folder):
    from azure.ai.ml.entities import Model

    return client.models.create_or_update(
        Model(name="weights-v2", path=str(folder / "weights" / "weights.txt"))
    )


@pytest.fixture(scope="session")
def environment(client):
    from azure.ai.ml.entities import Environment

    return client.environments.create_or_update(
        Environment(name="weights-env-v2", image="mcr.microsoft.com/x", conda_file=CONDA)
    )


@pytest.fixture(scope="session")
def deploy(client, model, environment, folder):
    """Deploy the weights' script, or what a test asks for, to an endpoint; the deployment."""
    from azure.ai.ml.entities import CodeConfiguration, ManagedOnlineDeployment

    def deploy(endpoint: str, name: str = "blue", **requested):
        code = CodeConfiguration(code=str(folder / "code"), scoring_script="score.py")
        wanted = {
            "model": model.id,
            "environment": environment.id,
            "code_configuration": code,
            "instance_type": "Standard_DS1_v2",
            "instance_count": 1,
        }
        deployment = ManagedOnlineDeployment(
            name=name, endpoint_name=endpoint, **wanted | requested
        )
        return client.online_deployments.begin_create_or_update(deployment).result()

    return deploy


@pytest.fixture(scope="session")
def shared(client, deploy):
    """An endpoint whose one deployment gets all of the traffic: look, do not change."""
    from azure.ai.ml.entities import ManagedOnlineEndpoint

    made = client.online_endpoints.begin_create_or_update(
        ManagedOnlineEndpoint(name="shared", description="to look at", tags={"data": "weights"})
    ).result()
    deploy("shared", tags={"kind": "weights"}, environment_variables={"WORKER_COUNT": "1"})
    made.traffic = {"blue": 100}
    yield client.online_endpoints.begin_create_or_update(made).result()
    client.online_endpoints.begin_delete("shared").result()


@pytest.fixture
def request_file(tmp_path) -> str:
    (tmp_path / "request.json").write_text('{"data": [[1, 2, 3]]}')
    return str(tmp_path / "request.json")
