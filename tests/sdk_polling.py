"""Shorter polling intervals of Azure's SDKs, which sleep for fixed times between two requests."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType, SimpleNamespace

import pytest

INTERVAL = 0.2  # seconds; the SDKs' own intervals are 2 to 20 s


@contextmanager
def fast_polls(*modules: ModuleType) -> Iterator[None]:
    """Let these modules of an SDK sleep for `INTERVAL` at most."""
    limited = SimpleNamespace(
        time=time.time, sleep=lambda seconds: time.sleep(min(seconds, INTERVAL))
    )
    with pytest.MonkeyPatch.context() as patch:
        for module in modules:
            patch.setattr(module, "time", limited)
        yield


@contextmanager
def fast_deployment_polls() -> Iterator[None]:
    """Let SDK v1 poll images and services of a deployment without its interval of 5 s."""
    from azureml.core.image import image
    from azureml.core.webservice import webservice

    with fast_polls(image, webservice):
        yield
