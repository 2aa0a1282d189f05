"""Chromium, and a run for the tests of the page that need no control plane."""

from __future__ import annotations

import pytest
from browser import open_browser

from mnist_deploy.local.core.runs import Run


@pytest.fixture
def run(runs) -> Run:
    return runs.create(runs.create_experiment("digits"), "r1")


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    try:
        browser = open_browser(tmp_path_factory.mktemp("chromium"))
    except FileNotFoundError as error:
        pytest.skip(str(error))
    with browser:
        yield browser
