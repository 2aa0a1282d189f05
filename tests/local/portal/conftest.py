"""A store with experiments and runs, for the tests of the page that need no control plane."""

from __future__ import annotations

import pytest

from mnist_deploy.local.core.runs import Run, Runs
from mnist_deploy.local.core.store import Store


@pytest.fixture
def runs(tmp_path):
    store = Store(tmp_path / "store")
    yield Runs(store)
    store.close()


@pytest.fixture
def run(runs) -> Run:
    return runs.create(runs.create_experiment("digits"), "r1")
