"""The client of SDK v2 on the genuine local workspace."""

from __future__ import annotations

import os

import pytest

from mnist_deploy.local.discovery import OTHER_IDENTITIES

pytest.importorskip("azure.ai.ml")


@pytest.fixture(scope="package")
def client(workspace_home, ws):
    from mnist_deploy.managed import connect_client

    with pytest.MonkeyPatch.context() as patch:
        for name in OTHER_IDENTITIES:
            patch.delenv(name, raising=False)
        patch.setenv("MNIST_DEPLOY_HOME", str(workspace_home))
        patch.setenv("AZUREML_CURRENT_CLOUD", os.environ.get("AZUREML_CURRENT_CLOUD", "AzureCloud"))
        yield connect_client(local=True)
