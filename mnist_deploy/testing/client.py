"""SDK v2's client of a mocked workspace; only tests that connect with SDK v2 import this."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import cache
from typing import Any
from unittest.mock import create_autospec, patch

from azure.ai.ml import MLClient
from azure.core.credentials import AccessToken
from azure.core.polling import LROPoller

from .cloud import EndlessWait, MockedCloud
from .connections import NAME, SUBSCRIPTION
from .containers import MemoryRuntime

# The operations whose public methods are recorded.
OPERATIONS = ("models", "environments", "online_endpoints", "online_deployments")
STEP = 0.002  # seconds between two looks at a thread that polls


class MockedClient(MLClient):
    """The SDK's client, and the cloud behind it.

    Attributes
    ----------
    cloud : MockedCloud
        How endpoints behave, and what reached them.
    """

    cloud: MockedCloud


class MockedCredential:
    """A credential that holds the token of the mocked workspace."""

    def __init__(self, token: str) -> None:
        self._token = token

    def get_token(self, *scopes: str, **_: Any) -> AccessToken:
        return AccessToken(self._token, int(time.time()) + 3600)


def make_client(token: str, cloud: MockedCloud) -> MockedClient:
    """The client of the mocked workspace, whose operations are recorded."""
    client: Any = MLClient(
        MockedCredential(token),
        SUBSCRIPTION,
        NAME,
        NAME,
        enable_telemetry=False,
        show_progress=False,
    )
    client.__class__ = MockedClient
    client.cloud = cloud
    for name in OPERATIONS:
        operations = getattr(client, name)
        kind: Any = type(operations)
        for verb in verbs_of(kind):
            double = double_of(kind, verb)
            double.reset_mock()
            double.side_effect = getattr(operations, verb)
            setattr(operations, verb, double)
    return client


@cache
def verbs_of(kind: Any) -> tuple[str, ...]:
    return tuple(
        name for name in dir(kind) if not name.startswith("_") and callable(getattr(kind, name))
    )


@cache
def double_of(kind: Any, verb: str) -> Any:
    """An autospecced method without its ``self``."""
    return create_autospec(kind, instance=True, spec_set=True).__getattr__(verb)


def lead_clients(
    runtime: MemoryRuntime, make_client: Callable[[], MockedClient]
) -> Iterator[AbstractContextManager[Any]]:
    """Have `MLClient.from_config` lead to the mock, and pollers wait on the mocked clock."""
    genuine = LROPoller.wait

    def wait(poller: LROPoller, timeout: float | None = None) -> None:
        thread: Any = poller._thread
        while thread is not None and thread.is_alive():
            thread.join(STEP)
            if thread.is_alive() and runtime.is_held(thread):
                if timeout is None:
                    raise EndlessWait
                runtime.cloud.clock.sleep(timeout)
                return
        genuine(poller, timeout)

    yield patch.object(LROPoller, "wait", wait)
    yield patch.object(MLClient, "from_config", lambda *_, **__: make_client())
