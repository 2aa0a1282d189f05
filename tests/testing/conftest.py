"""What the tests of the kit share."""

from __future__ import annotations

import pytest
from azureml.core import Model

import mnist_deploy as md

# What a session that pytester runs in this process imports, it would forget at its end.
for _name in md.__all__:
    getattr(md, _name)

pytest_plugins = ["mnist_deploy.testing"]


@pytest.fixture
def cloud(mocked_workspace):
    return mocked_workspace.cloud


@pytest.fixture
def service(mocked_workspace, deploy):
    return deploy(mocked_workspace)


@pytest.fixture(scope="session")
def deploy():
    """Deploy the tutorial's model through our helpers, and return the service."""

    def deploy(ws, name="svc", *, script="score.py", model=None, **aci):
        inference_config = md.build_inference_config(md.fetch_environment(ws), script)
        config = md.build_aci_config(**aci)
        return md.deploy_to_aci(ws, model or md.fetch_model(ws), inference_config, config, name)

    return deploy


@pytest.fixture(scope="session")
def begin():
    """Begin to deploy it as the SDK does, and return the service, which is not there yet."""

    def begin(ws, name="svc", config=None, **options):
        inference_config = md.build_inference_config(md.fetch_environment(ws))
        config = config or md.build_aci_config()
        return Model.deploy(ws, name, [md.fetch_model(ws)], inference_config, config, **options)

    return begin
