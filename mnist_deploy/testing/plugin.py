"""The kit's fixtures and its marker. pytest finds them by the package's entry point.

Every pytest session imports this module, most of them without using it, so large modules are
imported where they are used.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

from . import WorkspaceMock

if TYPE_CHECKING:
    from azure.ai.ml import MLClient
    from azureml.core import Workspace

    from .client import MockedClient
    from .connections import MockedWorkspace
    from .digits import MnistSample

_MARKER = (
    "mocked_workspace(assert_all_used=True, assert_all_deleted=False, listen=False): what the "
    "fixture of this name does, as mnist_deploy.testing.mock_workspace does"
)
T = TypeVar("T")
_mock = pytest.StashKey[WorkspaceMock]()
_home = pytest.StashKey[Path]()  # of the local workspace


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", _MARKER)


@pytest.fixture
def mocked_workspace(request: pytest.FixtureRequest) -> Iterator[MockedWorkspace]:
    """A workspace for every helper and for the SDK, without a process or a socket.

    It starts with the model ``sklearn_mnist`` and the environment ``tutorial-env``, version 1
    each, and remembers what is registered and deployed until the test ends. Its attribute
    ``cloud``, a `mnist_deploy.testing.cloud.MockedCloud`, sets how services behave and records
    what reached them. Scoring scripts are checked, but not run; what is sent to a service with
    `requests` is answered, while other HTTP clients cannot connect.
    """
    marker = request.node.get_closest_marker("mocked_workspace")
    mock = WorkspaceMock(*marker.args, **marker.kwargs) if marker else WorkspaceMock()
    with mock as workspace:
        request.node.stash[_mock] = mock
        yield workspace


@pytest.fixture
def mocked_client(mocked_workspace: MockedWorkspace) -> MockedClient:
    """SDK v2's client of `mocked_workspace`: both in one test are the same workspace.

    For `mnist_deploy.managed`, with the same ``cloud``. The marker ``mocked_workspace`` holds for
    it too.
    """
    from mnist_deploy.managed import connect_client

    return connect_client()  # type: ignore[return-value]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Any:
    """Raise an error of the test's answers in the test itself, and check no more if it failed."""
    failure: BaseException | None = None
    try:
        return (yield)
    except BaseException as error:
        failure = error
        raise
    finally:
        if mock := item.stash.get(_mock, None):
            mock.settle(failure)


@pytest.fixture(scope="session")
def local_workspace(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Workspace]:
    """The genuine SDK's workspace on this machine, which scoring scripts really run in.

    One for the whole session, in a folder of its own: what is registered and deployed in it
    stays until the session ends. It starts as `mocked_workspace` does. Where there is no local
    workspace (on Windows), the test is skipped.
    """
    if sys.platform == "win32":
        pytest.skip("the local workspace needs Linux or macOS")
    from mnist_deploy import local

    from .digits import stock

    request.config.stash[_home] = home = tmp_path_factory.mktemp("local_workspace")
    with _connected(local.connect, home) as workspace:
        try:
            stock(workspace, tmp_path_factory.mktemp("model"))
            yield workspace
        finally:
            local.stop(home)


@pytest.fixture(scope="session")
def local_client(request: pytest.FixtureRequest, local_workspace: Workspace) -> Iterator[MLClient]:
    """SDK v2's client of `local_workspace`, for `mnist_deploy.managed`."""
    from mnist_deploy import local

    with _connected(local.connect_client, request.config.stash[_home]) as client:
        yield client


@contextmanager
def _connected(connect: Callable[[Path], T], home: Path) -> Iterator[T]:
    """Connect, and restore the environment variables at the end of the block."""
    before = dict(os.environ)
    connected = connect(home)
    changed = {name for name in os.environ if os.environ[name] != before.get(name)}
    try:
        yield connected
    finally:
        for name in changed:
            os.environ.pop(name, None)
        os.environ.update({name: before[name] for name in changed & before.keys()})


@pytest.fixture(scope="session")
def mnist_sample(tmp_path_factory: pytest.TempPathFactory) -> MnistSample:
    """A hundred genuine digits to test with and three hundred to train on, each class alike.

    A `mnist_deploy.testing.digits.MnistSample`: ``images``, ``labels``, and ``data_dir`` with the
    same digits as IDX files.
    """
    from .digits import write_small_sample

    return write_small_sample(tmp_path_factory.mktemp("mnist_sample"))
