"""SDK v2 in front of a mocked workspace: an ``MLClient`` whose operations answer from memory.

All that the kit knows of azure-ai-ml is here. Whoever connects with SDK v2 imports this, nobody
else. Models, environments, endpoints and deployments are the SDK's own objects; its operations
are autospecced, and what is not simulated says so.
"""

from __future__ import annotations

import copy
import inspect
import re
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import DEFAULT, create_autospec

from azure.ai.ml import MLClient
from azure.ai.ml.entities import (
    EndpointAuthKeys,
    EndpointAuthToken,
    Environment,
    ManagedOnlineDeployment,
    ManagedOnlineEndpoint,
    Model,
)
from azure.ai.ml.operations import (
    EnvironmentOperations,
    ModelOperations,
    OnlineDeploymentOperations,
    OnlineEndpointOperations,
)
from azure.core.exceptions import HttpResponseError, ResourceNotFoundError
from azure.core.polling import LROPoller, NoPolling

from . import sdk
from .cloud import MockedCloud, WaitsForEver
from .network import ENDPOINT_HOST
from .registry import Document
from .services import TOKEN_LIFE, ControlPlane, MockedService, describe_model, new_key

OPERATIONS: dict[str, type] = {
    "models": ModelOperations,
    "environments": EnvironmentOperations,
    "online_endpoints": OnlineEndpointOperations,
    "online_deployments": OnlineDeploymentOperations,
}
_OF_KIND: dict[type, str] = {
    Model: "models",
    Environment: "environments",
    ManagedOnlineEndpoint: "online_endpoints",
    ManagedOnlineDeployment: "online_deployments",
}
# What an endpoint and a deployment are asked for, and show again.
_SETTINGS = ("auth_mode", "description", "properties", "tags")
_SHOWN = (
    "app_insights_enabled", "code_configuration", "description", "environment_variables",
    "instance_count", "instance_type", "properties", "request_settings", "tags",
)  # fmt: skip
_STATES = {"Transitioning": "Updating", "Healthy": "Succeeded", "Failed": "Failed"}
_REFERENCE = re.compile(r"(?:azureml:|.*/)?([^/:]+)(?::|/versions/)([^/:]+)")


class MockedClient(MLClient):
    """What the mock is specified by: the SDK's client, and the cloud behind it."""

    @property
    def cloud(self) -> MockedCloud:
        """How endpoints behave, and what reached them."""
        raise NotImplementedError


class MockedEndpoint:
    """One address with its keys; behind it deployments, each with its share of the requests."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.keys = {"primaryKey": new_key(), "secondaryKey": new_key()}
        self.tokens: list[str] = []
        self.deployments: dict[str, MockedService] = {}
        self.asked: dict[str, ManagedOnlineDeployment] = {}
        self.settings: dict[str, Any] = {}
        self.traffic: dict[str, int] = {}
        self._answered: Counter[str] = Counter()

    def share(self, traffic: dict[str, int]) -> None:
        """Share the requests so from now on."""
        shares = {name: share for name, share in traffic.items() if share}
        if unknown := shares.keys() - self.deployments.keys():
            raise HttpResponseError(f"There is no deployment {min(unknown)} to get traffic.")
        if sum(shares.values()) not in (0, 100):
            raise HttpResponseError(f"The traffic adds up to {sum(shares.values())} %, not to 100.")
        self.traffic = shares
        self._answered.clear()

    def choose(self, named: str | None) -> MockedService:
        """The deployment that is named, or whose turn it is."""
        if named is None and self.traffic:
            named = min(
                self.traffic, key=lambda name: (self._answered[name] + 1) / self.traffic[name]
            )
            self._answered[named] += 1
        absent = MockedService(f"{self.name}/{named or 'none'}")
        return self.deployments.get(named or "", absent)


def make_client(plane: ControlPlane) -> MockedClient:
    """The client of a mocked workspace."""
    client = _double()
    sdk.forget(client)
    client.cloud = plane.cloud
    simulated: dict[str, _Operations] = {
        "models": _Models(plane),
        "environments": _Environments(plane),
        "online_endpoints": _Endpoints(plane),
        "online_deployments": _Deployments(plane),
    }
    for name, kind in OPERATIONS.items():
        for verb in _verbs(kind):
            answer = getattr(simulated[name], verb, sdk.refuse(f"client.{name}.{verb}"))
            double = getattr(getattr(client, name), verb)
            double.return_value, double.side_effect = DEFAULT, answer
    for verb in ("create_or_update", "begin_create_or_update"):
        double = getattr(client, verb)
        double.return_value, double.side_effect = DEFAULT, _by_kind(client, verb)
    return client


def _by_kind(client: Any, verb: str) -> Callable[[Any], Any]:
    def answer(entity: Any) -> Any:
        name = _OF_KIND.get(type(entity))
        if name is None:
            raise sdk.not_simulated(f"client.{verb} of {type(entity).__name__}")
        return getattr(getattr(client, name), verb)(entity)

    return answer


@cache
def _double() -> Any:
    """Made once: it takes a tenth of a second."""
    client = create_autospec(MockedClient, instance=True, spec_set=True)
    kind: Any = type(client)  # of this one mock
    kind.__repr__ = lambda _: "<mocked client>"
    given = {
        "subscription_id": sdk.IDENTITY["subscription_id"],
        "resource_group_name": sdk.IDENTITY["resource_group"],
        "workspace_name": sdk.IDENTITY["name"],
    }
    for name, operations in OPERATIONS.items():
        given[name] = create_autospec(operations, instance=True, spec_set=True)
    for name in _public(MLClient):
        if name in given:
            setattr(client, name, given[name])
        elif isinstance(getattr(MLClient, name), property):
            setattr(kind, name, property(sdk.refuse(f"client.{name}")))
    return client


def _public(kind: type) -> list[str]:
    return [name for name in dir(kind) if not name.startswith("_")]


def _verbs(kind: type) -> list[str]:
    return [name for name in _public(kind) if inspect.isroutine(getattr(kind, name))]


class _Operations:
    """What the operations have in common."""

    def __init__(self, plane: ControlPlane) -> None:
        self.plane = plane

    def find_endpoint(self, name: str) -> MockedEndpoint:
        found = self.plane.endpoints.get(name)
        if found is None:
            raise ResourceNotFoundError(f"There is no endpoint {name}.")
        return found

    def find_model(self, name: str, version: str | None) -> Any:
        for each in self.plane.models.query(name=name):  # the newest first
            if version in (None, str(each.version)):
                return each
        raise ResourceNotFoundError(f"There is no model {name}:{version or 'latest'}.")

    def find_environment(self, name: str, version: str | None) -> Document:
        path = [name, "versions", version] if version else [name]
        status, found, _ = self.plane.environments.reply("GET", path, None)
        if status != 200:
            raise ResourceNotFoundError(found["message"])
        return found


class _Models(_Operations):
    def get(self, name: str, version: str | None = None, label: str | None = None) -> Model:
        found = self.find_model(name, _chosen(version, label))
        version = str(found.version)
        return Model(
            name=name,
            version=version,
            path=f"azureml://datastores/workspaceblobstore/paths/{found.url}",
            description=found.description,
            tags=dict(found.kv_tags),
            properties=dict(found.properties),
            id=_id("models", name, "versions", version),
        )

    def list(self, name: str | None = None) -> Iterator[Model]:
        found = self.plane.models.query(name=name, latest_version_only=name is None)
        return (self.get(each.name, str(each.version)) for each in found)

    def create_or_update(self, model: Model) -> Model:
        name, models = str(model.name), self.plane.models
        if any(str(each.version) == str(model.version) for each in models.query(name=name)):
            changes: Document = {"kvTags": model.tags, "properties": model.properties}
            changes |= {"description": model.description}
            body = [{"path": path, "value": value} for path, value in changes.items() if value]
            models.patch(f"{name}:{model.version}", body)
            return self.get(name, model.version)
        registered = models.register_model(
            name,
            self._upload(name, Path(str(model.path))),
            model.tags,
            model.properties,
            version=int(model.version) if model.version else None,
            description=model.description,
        )
        return self.get(name, str(registered.version))

    def _upload(self, name: str, path: Path) -> str:
        files = [path] if path.is_file() else [each for each in path.rglob("*") if each.is_file()]
        if not files:
            raise FileNotFoundError(f"There is no file of the model {name} at {path}.")
        names = [file.relative_to(path.parent).as_posix() for file in files]
        container = uuid.uuid4().hex
        self.plane.artifacts.upload_files([*map(str, files)], "LocalUpload", container, names)
        prefix = f"LocalUpload/{container}/{path.name}"
        return f"aml://asset/{self.plane.assets.create_asset(name, [{'prefix': prefix}]).id}"


class _Environments(_Operations):
    def __init__(self, plane: ControlPlane) -> None:
        super().__init__(plane)
        self._labels: dict[tuple[str, str], Document] = {}  # which SDK v1 knows nothing of

    def get(self, name: str, version: str | None = None, label: str | None = None) -> Environment:
        found = self.find_environment(name, _chosen(version, label))
        return Environment(
            name=name,
            version=found["version"],
            image=found["docker"]["baseImage"],
            conda_file=copy.deepcopy(found["python"]["condaDependencies"]),
            **copy.deepcopy(self._labels.get((name, found["version"]), {})),
            id=_id("environments", name, "versions", found["version"]),
        )

    def create_or_update(self, environment: Environment) -> Environment:
        if environment.build or not environment.image:
            raise sdk.not_simulated("an environment without an image")
        path = [str(environment.name)]
        path += ["versions", environment.version] if environment.version else []
        definition = {
            "python": {"condaDependencies": copy.deepcopy(environment.conda_file)},
            "docker": {"baseImage": environment.image},
        }
        _, registered, _ = self.plane.environments.reply("PUT", path, definition)
        name, version = registered["name"], registered["version"]
        labels = {"tags": environment.tags, "description": environment.description}
        labels |= {"properties": environment.properties}
        self._labels[name, version] = copy.deepcopy(labels)
        return self.get(name, version)

    def list(self, name: str | None = None) -> Iterator[Environment]:
        _, found, _ = self.plane.environments.reply("GET", [""], None)
        if name is None:
            return (self.get(each["name"], each["version"]) for each in found["value"])
        return (self.get(name, version) for version in self.plane.environments.versions(name))


class _Endpoints(_Operations):
    def get(self, name: str) -> ManagedOnlineEndpoint:
        found = self.find_endpoint(name)
        return ManagedOnlineEndpoint(
            name=name,
            **copy.deepcopy(found.settings),
            traffic=dict.fromkeys(found.deployments, 0) | found.traffic,
            scoring_uri=f"http://{name}{ENDPOINT_HOST}/score",
            provisioning_state="Succeeded",
            location=str(sdk.IDENTITY["location"]),
            id=_id("onlineEndpoints", name),
        )

    def list(self) -> Iterator[ManagedOnlineEndpoint]:
        return map(self.get, list(self.plane.endpoints))

    def begin_create_or_update(self, endpoint: ManagedOnlineEndpoint) -> Any:
        name = str(endpoint.name)
        if endpoint.auth_mode not in ("key", "aml_token") or endpoint.mirror_traffic:
            raise sdk.not_simulated("an endpoint with mirrored traffic or identities of Azure")
        found = self.plane.endpoints.get(name) or MockedEndpoint(name)
        found.share(endpoint.traffic)
        settings = {each: getattr(endpoint, each) for each in _SETTINGS}
        found.settings = copy.deepcopy(settings)
        self.plane.endpoints[name] = found
        return _poller(lambda: self.get(name))

    def begin_delete(self, name: str) -> Any:
        self.plane.endpoints.pop(name, None)
        return _poller(lambda: None)

    def get_keys(self, name: str) -> EndpointAuthKeys | EndpointAuthToken:
        found = self.find_endpoint(name)
        if found.settings["auth_mode"] == "key":
            primary, secondary = found.keys.values()
            return EndpointAuthKeys(primary_key=primary, secondary_key=secondary)
        found.tokens.append(new_key())
        until = int(self.plane.cloud.clock.time()) + TOKEN_LIFE
        return EndpointAuthToken(access_token=found.tokens[-1], expiry_time_utc=until)


class _Deployments(_Operations):
    def get(self, name: str, endpoint_name: str) -> ManagedOnlineDeployment:
        found, running = self._find(name, endpoint_name)
        asked = copy.deepcopy(found.asked[name])
        return ManagedOnlineDeployment(
            name=name,
            endpoint_name=endpoint_name,
            model=asked.model if isinstance(asked.model, str) else None,
            environment=asked.environment if isinstance(asked.environment, str) else None,
            **{each: getattr(asked, each) for each in _SHOWN},
            provisioning_state=_STATES[running.state],
            id=_id("onlineEndpoints", endpoint_name, "deployments", name),
        )

    def list(self, endpoint_name: str) -> Iterator[ManagedOnlineDeployment]:
        names = list(self.find_endpoint(endpoint_name).deployments)
        return (self.get(name, endpoint_name) for name in names)

    def begin_create_or_update(self, deployment: ManagedOnlineDeployment) -> Any:
        name, endpoint_name = str(deployment.name), str(deployment.endpoint_name)
        found = self.find_endpoint(endpoint_name)
        model = self.find_model(*_parts(deployment.model))
        if isinstance(deployment.environment, str):
            self.find_environment(*_parts(deployment.environment))
        full_name = f"{endpoint_name}/{name}"
        running = found.deployments.get(name) or MockedService(full_name)
        running.keys, running.tokens = found.keys, found.tokens
        by_key = found.settings["auth_mode"] == "key"
        asked = {"computeType": "Managed", "authEnabled": by_key, "aadAuthEnabled": not by_key}
        running.deploy(asked, [describe_model(model)], self.plane.said.plan_for(full_name))
        found.deployments[name], found.asked[name] = running, copy.deepcopy(deployment)

        def outcome() -> ManagedOnlineDeployment:
            running.get_on()
            if running.state == "Transitioning":
                raise WaitsForEver
            if running.state == "Failed":
                raise HttpResponseError(f"The container of {full_name} did not start.")
            return self.get(name, endpoint_name)

        return _poller(outcome)

    def begin_delete(self, name: str, endpoint_name: str) -> Any:
        found, _ = self._find(name, endpoint_name)
        if found.traffic.get(name):
            raise HttpResponseError(
                f"{name} gets {found.traffic[name]} % of the traffic of {endpoint_name}. Give it "
                "to another deployment first."
            )
        del found.deployments[name]
        return _poller(lambda: None)

    def get_logs(self, name: str, endpoint_name: str, lines: int) -> str:
        _, running = self._find(name, endpoint_name)
        return "\n".join(running.lines[-lines:])

    def _find(self, name: str, endpoint_name: str) -> tuple[MockedEndpoint, MockedService]:
        found = self.find_endpoint(endpoint_name)
        if name not in found.deployments:
            raise ResourceNotFoundError(f"There is no deployment {name} of {endpoint_name}.")
        return found, found.deployments[name]


def _poller(outcome: Callable[[], Any]) -> LROPoller[Any]:
    """Something long, whose outcome is there as soon as somebody asks for it."""
    return LROPoller(None, None, lambda _: outcome(), NoPolling())


def _chosen(version: str | None, label: str | None) -> str | None:
    """The version that is meant; None if it is the newest."""
    if (version is None) == (label != "latest"):
        raise ValueError(f"Expected a version or label='latest', got {version!r} and {label!r}.")
    return version


def _parts(reference: Any) -> tuple[str, str]:
    """(name, version) of ``azureml:NAME:VERSION`` or of an id; an object has them itself."""
    if not isinstance(reference, str):
        return reference.name, reference.version
    found = _REFERENCE.fullmatch(reference)
    if found is None:
        raise sdk.not_simulated(f"the reference {reference!r}")
    return found[1], found[2]


def _id(*parts: str) -> str:
    return "/".join((sdk.SCOPE, *parts))
