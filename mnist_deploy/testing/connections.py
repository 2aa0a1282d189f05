"""How SDK v1 and the helpers reach the mocked workspace, and which of their calls are recorded.

All that the kit knows of the insides of azureml-core is here. The SDK's own code runs; only its
pauses, its git and its default log-in are replaced.
"""

from __future__ import annotations

import copy
import inspect
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import Mock, create_autospec, patch

import azureml.core.compute.compute
import azureml.core.image.image
import azureml.core.model
import azureml.core.webservice.webservice
from azureml._base_sdk_common.tracking.tracking_info_registry import TrackingInfoRegistry
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
from mnist_deploy.local.discovery import CLOUD, NO_TELEMETRY, OTHER_IDENTITIES
from mnist_deploy.local.tokens import derive
from mnist_deploy.sdk import Deadline, DeadlineExceeded
from mnist_deploy.workspace import choose_workspace

from .cloud import Clock, EndlessWait, MockedCloud
from .network import CONTROL_HOST

Patch = AbstractContextManager[Any]

URL = f"https://{CONTROL_HOST}"
SUBSCRIPTION = "00000000-0000-0000-0000-00000000000c"
NAME = "mocked"  # of the workspace and of its resource group
# Modules in which something sleeps until an operation of the workspace has ended.
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
    """The SDK's workspace, and the cloud behind it.

    Attributes
    ----------
    cloud : MockedCloud
        How services behave, and what reached them.
    """

    cloud: MockedCloud

    def __repr__(self) -> str:
        return "<mocked workspace>"


def connect(token: str, cloud: MockedCloud) -> MockedWorkspace:
    """The mocked workspace, as SDK v1 finds it."""
    workspace: Any = Workspace.get(
        NAME,
        auth=make_authentication(token),
        subscription_id=SUBSCRIPTION,
        resource_group=NAME,
    )
    workspace.__class__ = MockedWorkspace
    workspace.cloud = cloud
    return workspace


def make_authentication(token: str) -> TokenAuthentication:
    """SDK v1's own, with every address of its cloud at the mocked control plane."""
    authentication = TokenAuthentication(lambda audience: token, cloud="AzureCloud")
    cloud = authentication._cloud_type = copy.deepcopy(authentication._cloud_type)
    for service in ("resource_manager", "management", "active_directory", "portal",
                    "active_directory_resource_id"):  # fmt: skip
        setattr(cloud.endpoints, service, URL)
    return authentication


def lead_sdk_v2(token: str) -> Iterator[Patch]:
    """Variables by which SDK v2, and azure-identity, find the mocked workspace by themselves."""
    variables = {
        "ARM_CLOUD_METADATA_URL": f"http://{CONTROL_HOST}/metadata/endpoints",
        "AZUREML_CURRENT_CLOUD": CLOUD,
        "MSI_ENDPOINT": f"{URL}/msi/{derive(token, 'msi')}",
        "AZURE_TOKEN_CREDENTIALS": "ManagedIdentityCredential",
        "REGISTRY_DISCOVERY_ENDPOINT_URL": URL,
        **NO_TELEMETRY,
    }
    others = {name: os.environ[name] for name in OTHER_IDENTITIES if name in os.environ}
    yield patch.dict(os.environ, {**variables, **dict.fromkeys(others, "")})
    if others:
        yield _without(others)


def _without(names: dict[str, str]) -> Patch:
    return patch.dict(os.environ, {k: v for k, v in os.environ.items() if k not in names}, True)


def replace_waiting(clock: Clock) -> Iterator[Patch]:
    """Have the SDK and the helpers wait on the mocked clock, and leave out what takes its time."""
    for (owner, name), shortcut in SHORTCUTS.items():
        yield patch.object(owner, name, shortcut)
    for module in (mnist_deploy.deployment.config, mnist_deploy.deployment.preflight):
        yield patch.object(module, "check_script", _passed_once(module.check_script))
    yield patch.object(Deadline, "call", _call_inline(clock))
    for module in WAITING:
        yield patch.object(module, "time", clock)


def _call_inline(clock: Clock) -> Callable:
    """No thread: where all is in memory, only what has no end outlasts a deadline."""

    def call(deadline: Deadline, function: Callable, *args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except EndlessWait:
            clock.sleep(deadline.remaining())
            raise DeadlineExceeded(
                f"The call did not complete within {deadline.seconds:g} s."
            ) from None

    return call


def _script_of(config: InferenceConfig) -> Path:
    return Path(config.source_directory or "", config.entry_script)


def _passed_once(genuine: Callable, script_of: Callable[[Any], Path] = Path) -> Callable:
    """A check of scripts, made once for each content that passes it."""

    def check(checked: Any) -> None:
        script = script_of(checked)
        passed = (genuine.__name__, script.read_bytes() if script.is_file() else None)
        if passed not in _passed:
            genuine(checked)
            _passed.add(passed)

    return check


_passed: set[tuple[str, bytes | None]] = set()


def _written_once() -> Callable:
    genuine = CondaDependencies.serialize_to_string

    def write(dependencies: CondaDependencies) -> str:
        key = json.dumps(dependencies.as_dict())
        if key not in _written:
            _written[key] = genuine(dependencies)
        return _written[key]

    return write


_written: dict[str, str] = {}

SHORTCUTS: dict[tuple[Any, str], Callable] = {
    (requirements, "installed_version"): cache(requirements.installed_version),
    (ClientBase, "_get_retry_delay"): lambda *_, **__: 0.0,  # before it repeats a request
    (TrackingInfoRegistry, "gather_all"): lambda *_, **__: {},  # no git is run
    (InferenceConfig, "validation_script_content"): _passed_once(
        InferenceConfig.validation_script_content, _script_of
    ),
    (CondaDependencies, "serialize_to_string"): _written_once(),
}


def lead_connections(workspace: MockedWorkspace, make_client: Callable[[], Any]) -> Iterator[Patch]:
    """Have the mocked workspace be what is connected to; no config.json is read.

    A login of the test's own leads to another workspace.
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
    yield patch.object(managed, "connect_locally", lambda *_: make_client())


def record_calls(spies: Mock) -> Iterator[Patch]:
    """Record the calls of SDK v1's public functions; each does what it does."""
    for owner, names in RECORDED.items():
        for name in names:
            yield _record(owner, name, getattr(owner, name))
            spies.attach_mock(double_of(owner, name), f"{owner.__name__}.{name}")


def _record(owner: type, name: str, side_effect: Callable) -> Patch:
    has_no_self = isinstance(inspect.getattr_static(owner, name), (staticmethod, classmethod))
    double = double_of(owner, name)
    if double.mock_calls:  # the look costs less than the work
        double.reset_mock()
    double.side_effect = side_effect
    return patch.object(owner, name, staticmethod(double) if has_no_self else double)


@cache
def double_of(owner: type, name: str) -> Any:
    """An autospecced function: made once, as it takes a quarter of a millisecond."""
    return create_autospec(getattr(owner, name))


def note_caught(note: Callable[[BaseException | None], object]) -> Iterator[Patch]:
    """Tell apart an error that ``pytest.raises`` or ``assertRaises`` has caught."""
    contexts = []
    if "pytest" in sys.modules:
        contexts.append(type(sys.modules["pytest"].raises(Exception)))
    if "unittest.case" in sys.modules:
        contexts.append(sys.modules["unittest.case"]._AssertRaisesContext)
    for context in contexts:
        yield patch.object(context, "__exit__", _noting(context.__exit__, note))


def _noting(genuine: Callable, note: Callable[[BaseException | None], object]) -> Callable:
    def leave(context: Any, kind: Any, error: BaseException | None, trace: Any) -> Any:
        is_caught = genuine(context, kind, error, trace)
        if is_caught:
            note(error)
        return is_caught

    return leave
