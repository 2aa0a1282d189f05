"""The kit's fixtures and marker, which pytest loads by the package's entry point.

Every pytest session imports this module, most of them without using it. Therefore functions import
large modules locally.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from . import mock_workspace

if TYPE_CHECKING:
    from azure.ai.ml import MLClient
    from azureml.core import Workspace

    from .client import MockedClient
    from .connections import MockedWorkspace
    from .digits import MnistSample

_MARKER = (
    "mocked_workspace(assert_all_used=True, assert_all_deleted=False, listen=False): options of "
    "the fixture of this name, as of mnist_deploy.testing.mock_workspace"
)
_mock = pytest.StashKey[mock_workspace]()
_home = pytest.StashKey[Path]()  # of the local workspace


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", _MARKER)


@pytest.fixture
def mocked_workspace(request: pytest.FixtureRequest) -> Iterator[MockedWorkspace]:
    """SDK v1's workspace in memory, for every helper and for the SDK itself.

    The workspace starts with the model ``sklearn_mnist`` and the environment ``tutorial-env``,
    version 1 each. Its attribute ``cloud``, a `mnist_deploy.testing.cloud.MockedCloud`, configures
    the services and records their requests. Scoring scripts are checked, but not run.
    """
    marker = request.node.get_closest_marker("mocked_workspace")
    mock = mock_workspace(*marker.args, **marker.kwargs) if marker else mock_workspace()
    with mock as workspace:
        request.node.stash[_mock] = mock
        yield workspace


@pytest.fixture
def mocked_client(mocked_workspace: MockedWorkspace) -> MockedClient:
    """SDK v2's client of `mocked_workspace`, with the same ``cloud`` and the same marker."""
    from mnist_deploy.managed import connect_client

    return connect_client()  # type: ignore[return-value]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Any:
    """Raise the recorded error of a test's own function in the test itself."""
    failure: BaseException | None = None
    try:
        return (yield)
    except BaseException as error:
        failure = error
        raise
    finally:
        if mock := item.stash.get(_mock, None):
            mock.raise_errors(failure)


@pytest.fixture(scope="session")
def local_workspace(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Workspace]:
    """SDK v1's local workspace, which runs scoring scripts.

    The session has one workspace in a temporary folder; registered assets and deployments remain
    until the session ends. The initial content is that of `mocked_workspace`.
    """
    from unittest.mock import patch

    from mnist_deploy import local

    from .digits import stock

    request.config.stash[_home] = home = tmp_path_factory.mktemp("local_workspace")
    with patch.dict(os.environ):  # restores the variables at the end
        workspace = local.connect(home)
        try:
            stock(workspace, tmp_path_factory.mktemp("model"))
            yield workspace
        finally:
            local.stop(home)


@pytest.fixture(scope="session")
def local_client(request: pytest.FixtureRequest, local_workspace: Workspace) -> Iterator[MLClient]:
    """SDK v2's client of `local_workspace`, for `mnist_deploy.managed`."""
    from unittest.mock import patch

    from mnist_deploy import local

    with patch.dict(os.environ):
        yield local.connect_client(request.config.stash[_home])


@pytest.fixture(scope="session")
def mnist_sample(tmp_path_factory: pytest.TempPathFactory) -> MnistSample:
    """A hundred genuine test digits, and files with 300 training digits.

    A `mnist_deploy.testing.digits.MnistSample`: ``images``, ``labels`` and ``data_dir``.
    """
    from .digits import write_small_sample

    return write_small_sample(tmp_path_factory.mktemp("mnist_sample"))
