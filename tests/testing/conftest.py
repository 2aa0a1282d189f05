"""What the tests of the kit share."""

from __future__ import annotations

import pytest

import mnist_deploy as md
from mnist_deploy.testing import services  # noqa: F401

# What a session that pytester runs in this process imports, it would forget at its end.
for _name in md.__all__:
    getattr(md, _name)

pytest_plugins = ["mnist_deploy.testing"]


@pytest.fixture
def cloud(mocked_workspace):
    return mocked_workspace.cloud


@pytest.fixture(scope="session")
def deploy():
    """Deploy the tutorial's model through our helpers, and return the service."""

    def deploy(ws, name="svc", *, script="score.py", **aci):
        inference_config = md.build_inference_config(md.fetch_environment(ws), script)
        config = md.build_aci_config(**aci)
        return md.deploy_to_aci(ws, md.fetch_model(ws), inference_config, config, name)

    return deploy
