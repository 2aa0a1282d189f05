"""Deployments in these tests are polled without the SDK's interval of 5 s."""

from __future__ import annotations

import pytest
from sdk_polling import fast_deployment_polls


@pytest.fixture(scope="package", autouse=True)
def _fast_polls():
    with fast_deployment_polls():
        yield
