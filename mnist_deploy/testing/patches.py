"""What is replaced in the SDK, and in `requests`, while a mocked workspace lives.

Everything is autospecced. Calls that belong to another workspace or address than the mocked
one go their ordinary way.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import cache
from typing import Any
from unittest.mock import Mock, create_autospec, patch

import azureml.core.webservice.webservice
import requests
from azureml._base_sdk_common.tracking.tracking_info_registry import TrackingInfoRegistry
from azureml._restclient.artifacts_client import ArtifactsClient
from azureml._restclient.assets_client import AssetsClient
from azureml._restclient.clientbase import ClientBase
from azureml._restclient.models_client import ModelsClient
from azureml.core import Environment, Model, Webservice
from azureml.core.webservice import AciWebservice

import mnist_deploy.sdk

from .backend import Backend
from .clock import Clock
from .transport import InMemoryAdapter, is_mocked

Patcher = AbstractContextManager[Any]

_CLIENT_METHODS: dict[type, tuple[str, ...]] = {
    ModelsClient: ("register_model", "get_by_id", "query", "patch", "delete"),
    AssetsClient: ("create_asset", "get_asset_by_id"),
    ArtifactsClient: (
        "upload_files",
        "upload_artifact_from_path",
        "get_files_by_artifact_prefix_id",
    ),
}
_RECORDED: dict[type, tuple[str, ...]] = {
    Model: ("register", "download", "delete", "deploy"),
    Environment: ("register", "get"),
    Webservice: ("wait_for_deployment", "delete", "get_logs", "get_keys", "regen_key"),
    AciWebservice: ("run", "update"),
}


def connections(backend: Backend, service_context: Any) -> Iterator[Patcher]:
    """Let `backend` answer what the SDK, or anyone with `requests`, sends to it."""
    answering = {
        ModelsClient: backend.models,
        AssetsClient: backend.assets,
        ArtifactsClient: backend.artifacts,
    }
    for client, names in _CLIENT_METHODS.items():
        for name in names:
            answer, genuine = getattr(answering[client], name), getattr(client, name)
            yield _replace(client, name, _for_context(service_context, answer, genuine))

    adapter, genuine_adapter = InMemoryAdapter(backend.answer), requests.Session.get_adapter

    def get_adapter(session: requests.Session, url: str) -> Any:
        return adapter if is_mocked(url) else genuine_adapter(session, url)

    yield _replace(requests.Session, "get_adapter", get_adapter)


def _for_context(context: Any, answer: Callable, genuine: Callable) -> Callable:
    def reply(client: Any, *args: Any, **kwargs: Any) -> Any:
        if client._service_context is context:
            return answer(*args, **kwargs)
        return genuine(client, *args, **kwargs)

    return reply


def shortcuts() -> Iterator[Patcher]:
    """Let no time pass where the SDK, or `deploy_to_aci`, waits, and let it run no git."""
    clock = Clock()
    yield patch.object(azureml.core.webservice.webservice, "time", clock)
    yield patch.object(mnist_deploy.sdk, "time", clock)
    yield _replace(ClientBase, "_get_retry_delay", lambda *_, **__: 0.0)
    yield _replace(TrackingInfoRegistry, "gather_all", lambda *_, **__: {})


def recorders(record: Mock) -> Iterator[Patcher]:
    """Note the calls of what users call; each does what it does."""
    for owner, names in _RECORDED.items():
        for name in names:
            yield _replace(owner, name, getattr(owner, name))
            record.attach_mock(_double(owner, name), f"{owner.__name__}.{name}")


def _replace(owner: type, name: str, side_effect: Callable) -> Patcher:
    has_no_self = isinstance(inspect.getattr_static(owner, name), (staticmethod, classmethod))
    double = _double(owner, name)
    double.reset_mock()
    double.side_effect = side_effect
    return patch.object(owner, name, staticmethod(double) if has_no_self else double)


@cache
def _double(owner: type, name: str) -> Any:
    """An autospecced function: made once, as it takes a quarter of a millisecond."""
    return create_autospec(getattr(owner, name))
