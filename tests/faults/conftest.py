"""Faults on purpose: what was tried, how often, and what was lost."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, field

import pytest

from mnist_deploy import local


@dataclass
class Line:
    """One line of the table; a test fills it in as it goes, so that a failure leaves one too."""

    tried: str
    times: int = 0
    lost: list[str] = field(default_factory=list)
    found: str = ""
    outcome: str = "not finished"


@pytest.fixture
def account(request):
    """The line of this test: what is tried is the first line of its docstring."""
    tried = request.function.__doc__.strip().splitlines()[0].rstrip(".")
    if hasattr(request.node, "callspec"):
        tried += f" ({request.node.callspec.id})"
    line = Line(tried)
    yield line
    if line.times and not line.lost:
        line.outcome = "nothing"
    # With the test's report it comes from whatever process has run it, to ``tests/conftest.py``.
    request.node.user_properties.append(("fault", asdict(line)))
    assert line.times > 0
    assert line.lost == []


@pytest.fixture
def workspace(home, tmp_path, monkeypatch):
    monkeypatch.setenv("AZUREML_LOG_DEPRECATION_WARNING_ENABLED", "False")
    monkeypatch.setenv(
        "REQUESTS_CA_BUNDLE", os.environ["REQUESTS_CA_BUNDLE"]
    )  # restored at the end
    monkeypatch.chdir(tmp_path)
    return local.connect(home)
