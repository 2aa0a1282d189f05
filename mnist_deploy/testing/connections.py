"""Connects SDK v1 and the helpers to the mocked workspace, and records their calls.

Only this module depends on internals of azureml-core. The SDK's own code runs, except for its
sleeps, its calls of git, its default login and slow functions.
"""

from __future__ import annotations

import copy
import inspect
import json
import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock, create_autospec, patch

import azureml.core.compute.compute
import azureml.core.image.image
import azureml.core.model
import azureml.core.webservice.webservice
import requests
from azureml._base_sdk_common.service_discovery import CachedServiceDiscovery
from azureml._base_sdk_common.tracking.tracking_info_registry import TrackingInfoRegistry
from azureml._common.async_utils.worker_pool import WorkerPool
from azureml._execution import _commands
from azureml._restclient import artifacts_client
from azureml._restclient.clientbase import ClientBase
from azureml.core import Environment, Model, Webservice, Workspace
from azureml.core.authentication import TokenAuthentication
from azureml.core.conda_dependencies import CondaDependencies
from azureml.core.model import InferenceConfig
from azureml.core.webservice import AciWebservice, AksWebservice

import mnist_deploy.client.connection
import mnist_deploy.deployment.config
import mnist_deploy.deployment.preflight
import mnist_deploy.managed.endpoint
import mnist_deploy.sdk
import mnist_deploy.workspace
from mnist_deploy.local.core import requirements
from mnist_deploy.local.discovery import OTHER_IDENTITIES, cloud_variables
from mnist_deploy.sdk import Deadline, DeadlineExceeded
from mnist_deploy.workspace import choose_workspace

from .behavior import EndlessWait
from .cloud import Clock, MockedCloud
from .network import CONTROL_HOST, Patch

URL = f"https://{CONTROL_HOST}"
SUBSCRIPTION = "00000000-0000-0000-0000-00000000000c"
NAME = "mocked"  # name of the workspace and of its resource group
# Modules with functions that sleep until an operation of the workspace has ended.
WAITING = (
    azureml.core.compute.compute,
    azureml.core.image.image,
    azureml.core.model,
    azureml.core.webservice.webservice,
    mnist_deploy.client.connection,
    mnist_deploy.sdk,
)
RECORDED: dict[type, tuple[str, ...]] = {
    Model: ("register", "download", "delete", "deploy"),
    Environment: ("register", "get"),
    Webservice: ("wait_for_deployment", "delete", "get_logs", "get_keys", "regen_key"),
    AciWebservice: ("run", "update"),
    AksWebservice: ("run", "update", "get_access_token"),
}


class MockedWorkspace(Workspace):
    """The SDK's workspace, mocked.

    Attributes
    ----------
    cloud : MockedCloud
        Sets how services behave, and records which requests they received.
    """

    cloud: MockedCloud

    def __repr__(self) -> str:
        return "<mocked workspace>"


def connect(token: str, cloud: MockedCloud) -> MockedWorkspace:
    """Return SDK v1's workspace."""
    workspace = MockedWorkspace.__new__(MockedWorkspace)
    workspace.__dict__.update(_connect_once(token).__dict__)
    workspace.cloud = cloud
    return workspace


@cache
def _connect_once(token: str) -> Workspace:
    """Return the workspace with the SDK's REST clients, whose construction is slow."""
    authentication = TokenAuthentication(lambda audience: token, cloud="AzureCloud")
    cloud = authentication._cloud_type = copy.deepcopy(authentication._cloud_type)
    for service in ("resource_manager", "management", "active_directory", "portal",
                    "active_directory_resource_id"):  # fmt: skip
        setattr(cloud.endpoints, service, URL)
    workspace = Workspace.get(
        NAME, auth=authentication, subscription_id=SUBSCRIPTION, resource_group=NAME
    )
    workspace.service_context  # noqa: B018 # where the SDK keeps the clients
    return workspace


@contextmanager
def set_variables(token: str) -> Iterator[None]:
    """Set the variables by which SDK v2 and azure-identity connect to the mocked workspace."""
    variables = cloud_variables(URL, f"http://{CONTROL_HOST}/metadata/endpoints", token)
    with patch.dict(os.environ, variables):  # which restores deleted variables as well
        for name in OTHER_IDENTITIES:
            os.environ.pop(name, None)
        yield
    # azureml-mlflow, which SDK v2 imports, reads the list of clouds once, from a variable set here.
    clouds: Any = sys.modules.get("azureml.mlflow._common._cloud.cloud")
    if clouds is not None:
        clouds.KNOWN_CLOUDS = clouds.get_known_clouds()


def replace_connections(
    workspace: MockedWorkspace, connect_client: Callable[[], Any]
) -> Iterator[Patch]:
    """Yield patches that connect to the mocked workspace; no config.json is read.

    With an explicit login the SDK connects to another workspace.
    """
    get, init = Workspace.get, Workspace.__init__

    def get_workspace(name: str, auth: Any = None, *args: Any, **kwargs: Any) -> Any:
        return get(name, auth, *args, **kwargs) if auth else workspace

    def init_workspace(self: Workspace, *args: Any, **kwargs: Any) -> None:
        bound = inspect.signature(init).bind(self, *args, **kwargs)
        if bound.arguments.get("auth") is not None:
            init(self, *args, **kwargs)
        else:
            self.__class__ = MockedWorkspace
            self.__dict__.update(workspace.__dict__)

    yield _record(Workspace, "get", get_workspace)
    yield _record(Workspace, "from_config", lambda *_, **__: workspace)
    yield patch.object(Workspace, "__init__", init_workspace)
    yield patch.object(mnist_deploy.workspace, "find_config", lambda *_: "a mocked config.json")
    for name in ("_connect_azure", "connect_locally"):
        yield patch.object(mnist_deploy.workspace, name, lambda *_, **__: workspace)
    managed = mnist_deploy.managed.endpoint
    yield patch.object(
        managed, "choose_workspace", lambda *args: (None, choose_workspace(*args)[1])
    )
    yield patch.object(managed, "connect_locally", lambda *_: connect_client())


def record_calls(spies: Mock) -> Iterator[Patch]:
    """Yield patches that record the calls of SDK v1's public functions and call them."""
    for owner, names in RECORDED.items():
        for name in names:
            yield _record(owner, name, getattr(owner, name))
            spies.attach_mock(_double_of(owner, name), f"{owner.__name__}.{name}")


def _record(owner: type, name: str, side_effect: Callable) -> Patch:
    has_no_self = isinstance(inspect.getattr_static(owner, name), (staticmethod, classmethod))
    double = _double_of(owner, name)
    if double.mock_calls:  # a reset is slower than this check
        double.reset_mock()
    double.side_effect = side_effect
    return patch.object(owner, name, staticmethod(double) if has_no_self else double)


@cache
def _double_of(owner: type, name: str) -> Any:
    """Return an autospecced function, whose construction takes a quarter of a millisecond."""
    return create_autospec(getattr(owner, name))


def record_caught(record: Callable[[BaseException | None], object]) -> Iterator[Patch]:
    """Yield patches that record the errors which ``pytest.raises`` or ``assertRaises`` catches."""

    def recording(genuine: Callable) -> Callable:
        def leave(context: Any, kind: Any, error: BaseException | None, trace: Any) -> Any:
            is_caught = genuine(context, kind, error, trace)
            if is_caught:
                record(error)
            return is_caught

        return leave

    contexts = []
    if pytest := sys.modules.get("pytest"):
        contexts.append(type(pytest.raises(Exception)))
    if "unittest.case" in sys.modules:
        contexts.append(sys.modules["unittest.case"]._AssertRaisesContext)
    for context in contexts:
        yield patch.object(context, "__exit__", recording(context.__exit__))


def replace_waiting(clock: Clock) -> Iterator[Patch]:
    """Yield patches so that the SDK and the helpers wait on the mocked clock and run faster."""
    for module in WAITING:
        yield patch.object(module, "time", clock)
    yield patch.object(Deadline, "call", _call_without_thread(clock))
    for (owner, name), function in SHORTCUTS.items():
        yield patch.object(owner, name, function)


def _call_without_thread(clock: Clock) -> Callable:
    """Return a replacement of `Deadline.call` without thread: only endless calls time out."""

    def call(deadline: Deadline, function: Callable, *args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except EndlessWait:
            clock.sleep(deadline.remaining())
            raise DeadlineExceeded(
                f"The call did not complete within {deadline.seconds:g} s."
            ) from None

    return call


def _once(genuine: Callable, key_of: Callable[[Any], object]) -> Callable:
    """Return a function that calls `genuine` once for each key and caches the result."""
    results: dict[object, Any] = {}

    def call(argument: Any) -> Any:
        key = key_of(argument)
        if key not in results:
            results[key] = genuine(argument)
        return results[key]

    return call


def _read(script: Path) -> bytes | None:
    return script.read_bytes() if script.is_file() else None


def _put_blob(stream: Any, url: str, *_: Any, **__: Any) -> None:
    """Upload a blob by one request, without the SDK's slow storage client."""
    headers = {"x-ms-blob-type": "BlockBlob"}
    requests.put(url, data=stream, headers=headers).raise_for_status()


def _submit(_: WorkerPool | None, function: Callable, *args: Any, **kwargs: Any) -> Future:
    """Call `function` at once: a thread's request could arrive after the end of the mock."""
    future: Future = Future()
    try:
        future.set_result(function(*args, **kwargs))
    except Exception as error:
        future.set_exception(error)
    return future


def _start_pool(_: int) -> SimpleNamespace:
    """Return a pool that uploads the snapshot of a submitted run at once, like `_submit`."""

    def apply(function: Callable, arguments: tuple) -> SimpleNamespace:
        return SimpleNamespace(get=_submit(None, function, *arguments).result)

    return SimpleNamespace(apply_async=apply)


_services: dict[str, str] = {}
_discover = CachedServiceDiscovery.get_cached_services_uris


def _discover_once(sdk: Any, *args: Any, discovery_url: str = "", **kwargs: Any) -> Any:
    """Discover the services without the SDK's cache, a file in the user's home folder."""
    if not (discovery_url or "").startswith(URL):
        return _discover(sdk, *args, discovery_url=discovery_url, **kwargs)
    if not _services:
        _services.update(sdk.discover_services_uris(discovery_url))
    return _services


_check_script = _once(mnist_deploy.deployment.preflight.check_script, _read)
SHORTCUTS: dict[tuple[Any, str], Callable] = {
    (mnist_deploy.deployment.config, "check_script"): _check_script,
    (mnist_deploy.deployment.preflight, "check_script"): _check_script,
    (requirements, "installed_version"): cache(requirements.installed_version),
    (artifacts_client, "upload_blob_from_stream"): _put_blob,
    (CachedServiceDiscovery, "get_cached_services_uris"): _discover_once,
    (WorkerPool, "submit"): _submit,
    (_commands, "Pool"): _start_pool,
    (ClientBase, "_get_retry_delay"): lambda *_, **__: 0.0,
    (TrackingInfoRegistry, "gather_all"): lambda *_, **__: {},  # it runs git
    (InferenceConfig, "validation_script_content"): _once(
        InferenceConfig.validation_script_content,
        lambda config: _read(Path(config.source_directory or "", config.entry_script)),
    ),
    (CondaDependencies, "serialize_to_string"): _once(
        CondaDependencies.serialize_to_string, lambda conda: json.dumps(conda.as_dict())
    ),
}
