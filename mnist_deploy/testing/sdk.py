"""All that the kit knows of the insides of azureml-core, and how it takes their place.

Models, environments and services of a mocked workspace are the SDK's own objects; its checks
are its own, and so are its exceptions: only where it would open a connection is somebody else.
What users call is autospecced. What belongs to another workspace goes its ordinary way.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Protocol
from unittest.mock import DEFAULT, Mock, create_autospec, patch

import azureml.core.webservice.webservice
from azureml._base_sdk_common.tracking.tracking_info_registry import TrackingInfoRegistry
from azureml._model_management._util import populate_model_not_found_details
from azureml._restclient.artifacts_client import ArtifactsClient
from azureml._restclient.assets_client import AssetsClient
from azureml._restclient.clientbase import ClientBase
from azureml._restclient.models import Asset
from azureml._restclient.models import Model as ModelDocument
from azureml._restclient.models_client import ModelsClient
from azureml._restclient.service_context import ServiceContext
from azureml.core import Environment, Model, Webservice, Workspace
from azureml.core.authentication import AbstractAuthentication
from azureml.core.conda_dependencies import CondaDependencies
from azureml.core.model import InferenceConfig
from azureml.core.webservice import AciWebservice, AksWebservice
from azureml.exceptions import WebserviceException

import mnist_deploy.client.connection
import mnist_deploy.deployment.config
import mnist_deploy.deployment.preflight
import mnist_deploy.managed.endpoint
import mnist_deploy.sdk
import mnist_deploy.workspace
from mnist_deploy.sdk import Deadline, DeadlineExceeded
from mnist_deploy.workspace import choose_workspace

from .cloud import Clock, MockedCloud, WaitsForEver
from .network import CONTROL_HOST

Patch = AbstractContextManager[Any]

URL = f"https://{CONTROL_HOST}"
IDENTITY = {
    "name": "mocked",
    "resource_group": "mocked",
    "subscription_id": "00000000-0000-0000-0000-000000000000",
    "location": "mocked",
    "sku": "Basic",
    "tags": {},
}
SCOPE = (
    "/subscriptions/{subscription_id}/resourceGroups/{resource_group}"
    "/providers/Microsoft.MachineLearningServices/workspaces/{name}"
).format(**IDENTITY)

# The clients of REST that are answered for, and which of their methods the public calls use.
REST_CLIENTS: dict[type, dict[str, str]] = {
    ModelsClient: {
        "register_model": "Model.register",
        "get_by_id": "Model(ws, id=)",
        "query": "Model(ws, name), Model.list",
        "patch": "Model.update, add_tags, add_properties",
        "delete": "Model.delete",
    },
    AssetsClient: {
        "create_asset": "Model.register",
        "get_asset_by_id": "Model.download, Model.get_sas_urls",
    },
    ArtifactsClient: {
        "upload_files": "Model.register",
        "upload_artifact_from_path": "Model.deploy, of the script",
        "get_files_by_artifact_prefix_id": "Model.download, Model.get_sas_urls",
    },
}
# What the SDK asks of a workspace beside its public properties.
WORKSPACE_PARTS = {
    "_auth": "of clusters",
    "_subscription_id": "of clusters that are attached",
    "_auth_object": "of models and services",
    "service_context": "of everything",
}
RECORDED: dict[type, tuple[str, ...]] = {
    Model: ("register", "download", "delete", "deploy"),
    Environment: ("register", "get"),
    Webservice: ("wait_for_deployment", "delete", "get_logs", "get_keys", "regen_key"),
    AciWebservice: ("run", "update"),
    AksWebservice: ("run", "update", "get_access_token"),
}
# Properties that ask the REST clients.
_GENUINE = ("models", "environments", "webservices", "compute_targets")


class MockedWorkspace(Workspace):
    """What the mock is specified by: the SDK's workspace, and the cloud behind it."""

    # The SDK sets these in __init__, where no autospec finds them.
    _auth: Any = None
    _subscription_id = ""

    @property
    def cloud(self) -> MockedCloud:
        """How services behave, and what reached them."""
        raise NotImplementedError


class MockedLogin(AbstractAuthentication):
    """What the SDK asks of a log-in; nobody is asked for it."""

    def __init__(self) -> None:
        pass

    def get_authentication_header(self) -> dict[str, str]:
        return {"Authorization": "Bearer mocked"}

    def _get_cloud_type(self) -> Any:  # the host of clusters, where they are created
        return SimpleNamespace(endpoints=SimpleNamespace(resource_manager=URL))


class MockedContext(ServiceContext):
    """What the SDK asks of a service context: where everything is, and the log-in."""

    subscription_id = IDENTITY["subscription_id"]
    resource_group_name = IDENTITY["resource_group"]
    workspace_name = IDENTITY["name"]

    def __init__(self) -> None:
        retries = SimpleNamespace(policy=SimpleNamespace())  # which the SDK sets, and nobody reads
        config = SimpleNamespace(base_url=URL, retry_policy=retries)
        self._rest_client = SimpleNamespace(config=config)

    def get_auth(self) -> MockedLogin:  # of the REST clients
        return MockedLogin()

    def _get_api_url(self) -> str:  # the host of clusters, where they are asked for
        return URL

    def _give_rest_client(self, *_: Any, **__: Any) -> Any:
        return self._rest_client

    def _get_shared_session(self, **_: Any) -> Any:  # of uploads
        return None

    _get_modelmanagement_restclient = _get_assets_restclient = _give_rest_client
    _get_artifacts_restclient = _get_environment_restclient = _give_rest_client


class RestClients(Protocol):
    """What answers in the place of the SDK's: objects with the methods above."""

    models: Any
    assets: Any
    artifacts: Any


@contextmanager
def replaced(
    cloud: MockedCloud, answering: RestClients, make_client: Callable[[], Any]
) -> Iterator[MockedWorkspace]:
    """A workspace whose REST clients are others, for as long as the block lasts.

    Parameters
    ----------
    make_client : callable
        Makes what those get who connect with SDK v2.
    """
    workspace = _workspace_double()
    forget(workspace)
    context = _equip_workspace(workspace, cloud)
    with ExitStack() as patches:
        for each in (
            *_rest_clients(answering, context),
            *_shortcuts(cloud.clock),
            *_connecting(workspace, make_client),
            *_recorders(cloud.spies),
        ):
            patches.enter_context(each)
        yield workspace


def not_simulated(what: str) -> NotImplementedError:
    return NotImplementedError(
        f"The mocked workspace does not simulate {what}. The fixtures local_workspace and "
        "local_client run the genuine SDK on a small control plane and know more."
    )


def model_document(name: str, url: str, mime_type: str, **fields: Any) -> ModelDocument:
    """A registered model, as the REST client hands it to `Model`."""
    return ModelDocument(name, url, mime_type, created_time=datetime.now(UTC), **fields)


def asset(name: str, asset_id: str, prefixes: list[str]) -> Asset:
    """The files of a model, as the REST client hands them to `Model`."""
    artifacts = [SimpleNamespace(id=None, prefix=prefix) for prefix in prefixes]
    return Asset(name, id=asset_id, artifacts=artifacts)


def model_not_found(model_id: str) -> WebserviceException:
    """What the SDK raises for a model that is not there."""
    return WebserviceException(populate_model_not_found_details(id=model_id))


def environment_document(environment: Environment) -> dict[str, Any]:
    """A definition, as it is sent to be registered."""
    return Environment._serialize_to_dict(environment)


def _rest_clients(answering: RestClients, context: Any) -> Iterator[Patch]:
    objects = {
        ModelsClient: answering.models,
        AssetsClient: answering.assets,
        ArtifactsClient: answering.artifacts,
    }
    for client, names in REST_CLIENTS.items():
        for name in names:
            answer, genuine = getattr(objects[client], name), getattr(client, name)
            yield _replace(client, name, _for_context(context, answer, genuine))


def _for_context(context: Any, answer: Callable, genuine: Callable) -> Callable:
    def reply(client: Any, *args: Any, **kwargs: Any) -> Any:
        if client._service_context is context:
            return answer(*args, **kwargs)
        return genuine(client, *args, **kwargs)

    return reply


def _shortcuts(clock: Clock) -> Iterator[Patch]:
    for (owner, name), shortcut in SHORTCUTS.items():
        yield _replace(owner, name, shortcut)
    for module in (mnist_deploy.deployment.config, mnist_deploy.deployment.preflight):
        yield patch.object(module, "check_script", _passed_once(module.check_script))
    yield patch.object(Deadline, "call", _call_at_once(clock))
    ours = (mnist_deploy.sdk, mnist_deploy.client.connection)
    for waiting in (azureml.core.webservice.webservice, *ours):
        yield patch.object(waiting, "time", clock)


def _call_at_once(clock: Clock) -> Callable:
    """No thread: where all is in memory, only what has no end outlasts a deadline."""

    def call(deadline: Deadline, function: Callable, *args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except WaitsForEver:
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

# What takes the SDK its time, and what is done instead.
SHORTCUTS: dict[tuple[type, str], Callable] = {
    (ClientBase, "_get_retry_delay"): lambda *_, **__: 0.0,  # before it repeats a request
    (TrackingInfoRegistry, "gather_all"): lambda *_, **__: {},  # no git is run
    (InferenceConfig, "validation_script_content"): _passed_once(
        InferenceConfig.validation_script_content, _script_of
    ),
    (CondaDependencies, "serialize_to_string"): _written_once(),
}


def _connecting(workspace: Any, make_client: Callable[[], Any]) -> Iterator[Patch]:
    """Whoever connects gets the mocked workspace, and no config.json is read."""
    genuine = Workspace.get

    def get(name: str, auth: Any = None, *args: Any, **kwargs: Any) -> Any:
        # With a log-in of its own it is another workspace.
        return genuine(name, auth, *args, **kwargs) if auth else workspace

    yield _replace(Workspace, "get", get)
    yield _replace(Workspace, "from_config", lambda *_, **__: workspace)
    yield patch.object(mnist_deploy.workspace, "find_config", lambda *_: "a mocked config.json")
    for name in ("_connect_azure", "connect_locally"):
        yield patch.object(mnist_deploy.workspace, name, lambda *_, **__: workspace)
    managed = mnist_deploy.managed.endpoint
    yield patch.object(
        managed, "choose_workspace", lambda *args: (None, choose_workspace(*args)[1])
    )
    yield patch.object(managed, "connect_locally", lambda *_: make_client())


def _recorders(record: Mock) -> Iterator[Patch]:
    """Note the calls of what users call; each does what it does."""
    for owner, names in RECORDED.items():
        for name in names:
            yield _replace(owner, name, getattr(owner, name))
            record.attach_mock(double_of(owner, name), f"{owner.__name__}.{name}")


def _replace(owner: type, name: str, side_effect: Callable) -> Patch:
    has_no_self = isinstance(inspect.getattr_static(owner, name), (staticmethod, classmethod))
    double = double_of(owner, name)
    forget(double)
    double.side_effect = side_effect
    return patch.object(owner, name, staticmethod(double) if has_no_self else double)


def forget(double: Any) -> None:
    if double.mock_calls:  # the look costs less than the work
        double.reset_mock()


@cache
def double_of(owner: type, name: str) -> Any:
    """An autospecced function: made once, as it takes a quarter of a millisecond."""
    return create_autospec(getattr(owner, name))


@cache
def _workspace_double() -> Any:
    """Made once: it has a hundred methods."""
    workspace = create_autospec(MockedWorkspace, instance=True, spec_set=True)
    kind: Any = type(workspace)  # of this one mock
    kind.__repr__ = lambda _: "<mocked workspace>"
    given = {*IDENTITY, *WORKSPACE_PARTS, "cloud"}
    for name in dir(Workspace):
        attribute = getattr(Workspace, name)
        if name in _GENUINE:
            setattr(kind, name, attribute)
        elif isinstance(attribute, property) and name not in given:
            setattr(kind, name, property(refuse(f"Workspace.{name}")))
    return workspace


def _equip_workspace(workspace: Any, cloud: MockedCloud) -> ServiceContext:
    login, context = MockedLogin(), MockedContext()
    parts = {"_auth": login, "_auth_object": login, "service_context": context}
    parts["_subscription_id"] = IDENTITY["subscription_id"]
    for name, value in {**IDENTITY, **parts, "cloud": cloud}.items():
        setattr(workspace, name, value)
    for method, refusal in _refusals():
        if method.side_effect is not refusal:  # at first, and where a test has changed it
            method.return_value, method.side_effect = DEFAULT, refusal
    return context


@cache
def _refusals() -> list[tuple[Any, Callable[..., Any]]]:
    """The methods of the workspace, and what each of them raises."""
    names = [name for name in dir(Workspace) if not name.startswith("__")]
    methods = [name for name in names if callable(getattr(Workspace, name))]
    return [(getattr(_workspace_double(), x), refuse(f"Workspace.{x}")) for x in methods]


@cache
def refuse(what: str) -> Callable[..., Any]:
    def refuse(*_: Any, **__: Any) -> Any:
        raise not_simulated(what)

    return refuse
