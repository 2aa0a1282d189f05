"""Whatever is sent, the answer is no server error, and nothing that was sent sticks."""

from __future__ import annotations

import pytest
from generated_requests import Sender

from mnist_deploy.local.core.endpoints import Endpoints
from mnist_deploy.local.core.records import Model, now
from mnist_deploy.local.core.store import Store
from mnist_deploy.local.server.app import create_app
from mnist_deploy.local.server.leases import Leases


@pytest.fixture
def app(tmp_path):
    store = Store(tmp_path / "store")
    store.write("LocalUpload/c/f", [b"dependencies: []"])
    for path in ("Code/c/code/s", "Code/c/code/s/s.py"):  # of which no folder can be made
        store.write(path, [b""])
    store.add(Model("m", 0, ("LocalUpload/c/f",), now()))
    endpoints = Endpoints(store, tmp_path / "containers")
    yield create_app(store, endpoints, Leases(), "token", "127.0.0.1:1")
    endpoints.stop_all()
    store.close()


@pytest.mark.parametrize(
    ("seed", "times"), [(1, 10), *(pytest.param(n, 100, marks=pytest.mark.faults) for n in (2, 3))]
)
def test_no_request_is_a_server_error(app, seed, times):
    sender = Sender(app, seed)
    sender.run(times)
    assert sum(sum(each.values()) for each in sender.answers.values()) > 50 * times
    assert not sender.broken, "\n".join(f"{k}\n    {v}" for k, v in sender.broken.items())
