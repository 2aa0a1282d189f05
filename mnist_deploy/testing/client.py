"""SDK v2's client of a mocked workspace; imported only by tests that use SDK v2."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import cache
from types import SimpleNamespace
from typing import Any
from unittest.mock import create_autospec, patch

from azure.ai.ml import MLClient
from azure.core.credentials import AccessToken
from azure.core.polling import LROPoller

from .behavior import EndlessWait
from .cloud import MockedCloud
from .connections import NAME, SUBSCRIPTION
from .containers import MemoryRuntime
from .network import Patch

# Operations with recorded public methods.
OPERATIONS = ("models", "environments", "online_endpoints", "online_deployments")
POLL_INTERVAL = 0.002  # seconds


class MockedClient(MLClient):
    """The SDK's client of a mocked workspace.

    Attributes
    ----------
    cloud : MockedCloud
        Sets how endpoints behave, and records which requests they received.
    """

    cloud: MockedCloud


def connect(token: str, cloud: MockedCloud) -> MockedClient:
    """Return the client of the mocked workspace, with recorded operations."""
    answer = AccessToken(token, int(time.time()) + 3600)
    credential: Any = SimpleNamespace(get_token=lambda *scopes, **_: answer)
    names = (SUBSCRIPTION, NAME, NAME)
    client: Any = MLClient(credential, *names, enable_telemetry=False, show_progress=False)
    client.__class__ = MockedClient
    client.cloud = cloud
    for name in OPERATIONS:
        operations = getattr(client, name)
        for verb, double in doubles_of(operations.__class__).items():
            double.reset_mock()
            double.side_effect = getattr(operations, verb)
            setattr(operations, verb, double)
    return client


@cache
def doubles_of(kind: Any) -> dict[str, Any]:
    """Return autospecced public methods, without their ``self``, by their names."""
    double = create_autospec(kind, instance=True, spec_set=True)
    verbs = (name for name in dir(kind) if not name.startswith("_"))
    return {verb: getattr(double, verb) for verb in verbs if callable(getattr(kind, verb))}


def replace_clients(
    runtime: MemoryRuntime, connect_client: Callable[[], MockedClient]
) -> Iterator[Patch]:
    """Yield patches of `MLClient.from_config`, and of pollers, to use the mocked clock."""
    genuine = LROPoller.wait

    def wait(poller: LROPoller, timeout: float | None = None) -> None:
        thread: Any = poller._thread
        while thread is not None and thread.is_alive():
            thread.join(POLL_INTERVAL)
            if thread.is_alive() and thread in runtime.blocked_pollers:
                if timeout is None:
                    raise EndlessWait
                runtime.cloud.clock.sleep(timeout)
                return
        genuine(poller, timeout)

    yield patch.object(LROPoller, "wait", wait)
    yield patch.object(MLClient, "from_config", lambda *_, **__: connect_client())
