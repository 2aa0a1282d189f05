"""A pytest kit for what is built on `mnist_deploy`: ``pytest_plugins = ["mnist_deploy.testing"]``.

That line, in a test module or in the top-level ``conftest.py``, brings three fixtures:
`mocked_workspace` (the SDK in memory, a few milliseconds a test), `local_workspace` (the
genuine SDK and a real scoring server on this machine) and `mnist_sample` (genuine digits).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

try:
    import pytest
except ImportError:
    raise ImportError(
        "mnist_deploy.testing is for pytest, which is not installed: pip install pytest"
    ) from None

if TYPE_CHECKING:
    from azureml.core import Workspace

    from .digits import MnistSample
    from .workspace import MockedWorkspace

__all__ = ["local_workspace", "mnist_sample", "mocked_workspace"]


@pytest.fixture
def mocked_workspace() -> Iterator[MockedWorkspace]:
    """A workspace for every helper and for the SDK, without a process or a socket.

    It starts with the model ``sklearn_mnist`` and the environment ``tutorial-env``, version 1
    each, and remembers what is registered and deployed until the test ends. Its attribute
    ``cloud``, a `mnist_deploy.testing.cloud.MockedCloud`, says how services behave and shows
    what reached them. Scoring scripts are checked, but not run; what is sent to a service with
    `requests` is answered, while other HTTP clients find nobody there.
    """
    from .backend import Backend
    from .cloud import MockedCloud
    from .start import stock_mock
    from .workspace import open_workspace

    cloud = MockedCloud()
    backend = Backend(cloud)
    stock_mock(backend)
    with open_workspace(cloud, backend) as workspace:
        yield workspace


@pytest.fixture(scope="session")
def local_workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    """The genuine SDK's workspace on this machine, which scoring scripts really run in.

    One for the whole session, in a folder of its own: what is registered and deployed in it
    stays until the session ends. It starts as `mocked_workspace` does. Where there is no local
    workspace (on Windows), the test is skipped.
    """
    from mnist_deploy import local

    from .start import stock

    if sys.platform == "win32":
        pytest.skip("the local workspace needs Linux or macOS")
    home = tmp_path_factory.mktemp("local_workspace")
    before = dict(os.environ)
    workspace = local.connect(home)
    changed = {name for name in os.environ if os.environ[name] != before.get(name)}
    try:
        stock(workspace, tmp_path_factory.mktemp("model"))
        yield workspace
    finally:
        local.stop(home)
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
