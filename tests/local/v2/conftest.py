"""SDK v2 on the workspace that all tests of the folder above share; nobody else is asked."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from weights_service import SCRIPT

from mnist_deploy import local
from mnist_deploy.local.tls import OTHER_IDENTITIES

pytest.importorskip("azure.ai.ml")

CONDA = {"name": "weights-env", "dependencies": ["python=3.11", {"pip": ["numpy"]}]}


@pytest.fixture(scope="session", autouse=True)
def _no_other_identity():
    """Whatever goes wrong, no credential asks an address outside of this machine."""
    with pytest.MonkeyPatch.context() as patch:
        for name in OTHER_IDENTITIES:
            patch.delenv(name, raising=False)
        patch.setenv("AZURE_TOKEN_CREDENTIALS", "ManagedIdentityCredential")
        patch.setenv("MSI_ENDPOINT", "http://127.0.0.1:9/nobody")
        yield


@pytest.fixture(scope="session")
def client(local_ws, local_home):
    """The genuine MLClient."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AZUREML_CURRENT_CLOUD", os.environ.get("AZUREML_CURRENT_CLOUD", "AzureCloud"))
        yield local.connect_client(local_home)


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
