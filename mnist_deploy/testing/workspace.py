"""The mocked workspace: the genuine SDK, down to where it would open a connection.

Models, environments and services are the SDK's own objects; its checks are its own, and so
are its exceptions. The workspace itself is autospecced.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from typing import Any, NamedTuple
from unittest.mock import create_autospec

import azureml.core  # noqa: F401 - first: below it, modules import each other in circles
from azureml._restclient.service_context import ServiceContext
from azureml.core import Workspace
from azureml.core.authentication import AbstractAuthentication

from .backend import Backend
from .cloud import MockedCloud
from .patches import connections, recorders, shortcuts
from .service_api import not_simulated
from .transport import CONTROL_HOST

_IDENTITY = {
    "name": "mocked",
    "resource_group": "mocked",
    "subscription_id": "00000000-0000-0000-0000-000000000000",
    "location": "mocked",
    "sku": "Basic",
    "tags": {},
}
_SCOPE = (
    "/subscriptions/{subscription_id}/resourceGroups/{resource_group}"
    "/providers/Microsoft.MachineLearningServices/workspaces/{name}"
).format(**_IDENTITY)
_GENUINE = ("models", "environments", "webservices")  # properties that ask the REST clients
_GIVEN = {*_IDENTITY, "service_context", "_auth_object", "cloud"}
_REST_CLIENTS = ("modelmanagement", "assets", "artifacts", "environment")


class MockedWorkspace(Workspace):
    """What the mock is specified by: the SDK's workspace, and the cloud behind it."""

    @property
    def cloud(self) -> MockedCloud:
        """How services behave, and what reached them."""
        raise NotImplementedError


@contextmanager
def open_workspace(cloud: MockedCloud, backend: Backend) -> Iterator[MockedWorkspace]:
    """The mocked workspace in front of a backend, for as long as the block lasts."""
    workspace, context, login = _doubles()
    for double in (workspace, context, login):
        double.reset_mock(return_value=True, side_effect=True)
    _equip_context(context, login)
    _equip_workspace(workspace, context, login, cloud)
    with ExitStack() as patches:
        for patcher in (*connections(backend, context), *shortcuts(), *recorders(cloud.spies)):
            patches.enter_context(patcher)
        yield workspace


class _Doubles(NamedTuple):
    workspace: Any
    context: Any
    login: Any


@cache
def _doubles() -> _Doubles:
    """Made once: it takes 15 ms for a hundred methods."""
    workspace = create_autospec(MockedWorkspace, instance=True, spec_set=True)
    kind: Any = type(workspace)  # of this one mock
    kind.__repr__ = lambda _: "<mocked workspace>"
    for name in dir(Workspace):
        attribute = getattr(Workspace, name)
        if name in _GENUINE:
            setattr(kind, name, attribute)
        elif isinstance(attribute, property) and name not in _GIVEN:
            setattr(kind, name, property(_refuse(f"Workspace.{name}")))
    context = create_autospec(ServiceContext, instance=True)
    return _Doubles(workspace, context, create_autospec(AbstractAuthentication, instance=True))


def _equip_workspace(workspace: Any, context: Any, login: Any, cloud: MockedCloud) -> None:
    given = {**_IDENTITY, "service_context": context, "_auth_object": login, "cloud": cloud}
    for name, value in given.items():
        setattr(workspace, name, value)
    for name in dir(Workspace):
        if not name.startswith("__") and callable(getattr(Workspace, name)):
            getattr(workspace, name).side_effect = _refuse(f"Workspace.{name}")


def _refuse(what: str) -> Callable[..., Any]:
    def refuse(*_: Any, **__: Any) -> Any:
        raise not_simulated(what)

    return refuse


def _equip_context(context: Any, login: Any) -> None:
    login.get_authentication_header.side_effect = lambda: {"Authorization": "Bearer mocked"}
    context.get_auth.return_value = login
    context._get_workspace_scope.return_value = _SCOPE
    context.subscription_id = _IDENTITY["subscription_id"]
    context.resource_group_name = _IDENTITY["resource_group"]
    context.workspace_name = _IDENTITY["name"]
    for client in _REST_CLIENTS:
        made = getattr(context, f"_get_{client}_restclient").return_value
        made.config.base_url = f"https://{CONTROL_HOST}"
