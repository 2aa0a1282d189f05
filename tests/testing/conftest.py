"""Fixtures of the kit's tests."""

from __future__ import annotations

from itertools import count

import pytest
import tutorial_deployments

pytest_plugins = ["mnist_deploy.testing"]
_numbers = count()


@pytest.fixture
def name():
    """A name that is not used yet in the session."""
    return f"contract-{next(_numbers)}"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The working directory with a model file: the SDK registers no file of another folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.pkl").write_bytes(b"the first content")
    return tmp_path


@pytest.fixture
def cloud(mocked_workspace):
    return mocked_workspace.cloud


@pytest.fixture
def service(mocked_workspace, deploy):
    return deploy(mocked_workspace)


@pytest.fixture(scope="session")
def deploy():
    return tutorial_deployments.deploy


@pytest.fixture(scope="session")
def begin():
    return tutorial_deployments.begin
