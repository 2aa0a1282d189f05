"""Deployments of an endpoint: a script, a model and an environment, on so many instances."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from datetime import timedelta
from typing import Annotated, Any, Literal, TypeVar

from flask import Blueprint, Response, jsonify
from msgspec import Meta, Struct, to_builtins

from .. import platforms
from ..bodies import Document, Labels, body, texts
from ..core.container_spec import ContainerSpec, Upload
from ..core.deployments import Deployment, DeploymentSpec
from ..core.endpoints import Endpoint, EndpointSpec
from ..core.faults import Conflict, Invalid, NotFound, NotSupported
from ..core.records import Code, Environment, Model
from ..rest import endpoints, store
from .endpoints import CHANGE_LIMIT, ENDPOINTS, KIND, NAME, NAME_RULE, find_endpoint
from .instances import instance_size, quantity
from .operations import location
from .resources import IDENTITY, LOCATION, page, parse_asset_id, resource

DEPLOYMENTS = f"{ENDPOINTS}/<endpoint>/deployments"
REQUEST_TIMEOUT = timedelta(seconds=5)  # what Azure takes where nothing is asked for
MANAGED_SIZE = "Standard_DS3_v2"
KUBERNETES_SIZE = {"cpu": "2", "memory": "8Gi"}
LOG_LINES = 1000
STATES = {"Transitioning": "Updating", "Failed": "Failed"}  # with any other it has succeeded
Asset = TypeVar("Asset", Model, Environment, Code)

deployment_api = Blueprint("deployments", __name__)

Instances = Annotated[int, Meta(ge=1, le=50)]


class CodeConfiguration(Struct, rename="camel"):
    scoring_script: str
    code_id: str


class RequestSettings(Struct, rename="camel"):
    max_concurrent_requests_per_instance: Annotated[int, Meta(ge=1, le=1000)] | None = None
    max_queue_wait: timedelta | None = None
    request_timeout: timedelta | None = None

    @property
    def limits(self) -> platforms.RequestSettings:
        """What the deployment sets of its own."""
        return platforms.RequestSettings(
            self.request_timeout.total_seconds() if self.request_timeout else None,
            self.max_concurrent_requests_per_instance,
            self.max_queue_wait.total_seconds() if self.max_queue_wait else None,
        )


class Probe(Struct, rename="camel"):
    initial_delay: timedelta | None = None
    period: timedelta | None = None
    timeout: timedelta | None = None
    success_threshold: Annotated[int, Meta(ge=1)] | None = None
    failure_threshold: Annotated[int, Meta(ge=1)] | None = None

    @property
    def settings(self) -> platforms.ProbeSettings:
        """What it sets, and Azure's defaults for the rest."""
        given: dict[str, Any] = {name: getattr(self, name) for name in self.__struct_fields__}
        own: dict[str, Any] = {
            name: value.total_seconds() if isinstance(value, timedelta) else value
            for name, value in given.items()
            if value is not None
        }
        return platforms.ProbeSettings(**own)


class ScaleSettings(Struct, rename="camel"):
    scale_type: Literal["Default", "TargetUtilization"] = "Default"
    min_instances: Instances | None = None
    max_instances: Instances | None = None
    target_utilization_percentage: int | None = None
    polling_interval: timedelta | None = None


class ContainerResources(Struct, rename="camel"):
    container_resource_limits: dict[str, str | None] | None = None
    container_resource_requests: dict[str, str | None] | None = None


class Properties(Struct, rename="camel", kw_only=True):
    endpoint_compute_type: Literal["Managed", "Kubernetes"]
    code_configuration: CodeConfiguration | None = None
    environment_id: str | None = None
    model: str | None = None
    model_mount_path: str | None = None
    environment_variables: dict[str, str | None] | None = None
    instance_type: str | None = None
    container_resource_requirements: ContainerResources | None = None
    request_settings: RequestSettings | None = None
    scale_settings: ScaleSettings | None = None
    liveness_probe: Probe | None = None
    readiness_probe: Probe | None = None
    startup_probe: Probe | None = None
    app_insights_enabled: bool | None = None
    data_collector: dict[str, Any] | None = None
    egress_public_network_access: str | None = None
    private_network_connection: bool | None = None
    description: str | None = None
    properties: Labels | None = None


class Sku(Struct):
    capacity: Instances | None = None


class Asked(Struct):
    properties: Properties
    sku: Sku | None = None
    tags: Labels | None = None


class LogRequest(Struct, rename="camel"):
    tail: Annotated[int, Meta(ge=0)] | None = None
    container_type: str | None = None


@deployment_api.get(DEPLOYMENTS)
def list_deployments(endpoint: str, **_: str) -> Response:
    found = find_endpoint(endpoint)
    return jsonify(page(found.deployments.items(), lambda item: describe(found, *item)))


@deployment_api.get(f"{DEPLOYMENTS}/<deployment>")
def show_deployment(endpoint: str, deployment: str, **_: str) -> Response:
    found = find_endpoint(endpoint)
    return jsonify(describe(found, deployment, find_deployment(found, deployment)))


def find_deployment(endpoint: Endpoint, name: str) -> Deployment:
    found = endpoint.deployments.get(name)
    if found is None:
        raise NotFound("deployment", f"{name} of endpoint {endpoint.name}")
    return found


@deployment_api.put(f"{DEPLOYMENTS}/<deployment>")
def put_deployment(endpoint: str, deployment: str, **_: str) -> Response:
    """Create a deployment or change it: accepted at once, done when its operation says so."""
    asked = body(Asked)
    if not NAME.fullmatch(deployment):
        raise Invalid("deployment", f"{deployment!r} is no name for a deployment: {NAME_RULE}.")
    found = find_endpoint(endpoint)
    check_compute(found, asked.properties)

    def change(spec: EndpointSpec) -> EndpointSpec:
        running = found.deployments.get(deployment)
        has_failed = running is not None and running.error is not None
        wanted = specify(asked, spec.deployments.get(deployment), restart=has_failed)
        return dataclasses.replace(spec, deployments=spec.deployments | {deployment: wanted})

    operation = endpoints().change(KIND, endpoint, change)
    answer = show_deployment(endpoint, deployment)  # unless it was deleted meanwhile
    answer.status_code = 201
    answer.headers |= location(operation)
    return answer


def check_compute(endpoint: Endpoint, wanted: Properties) -> None:
    kind = "Kubernetes" if endpoint.spec.other["compute"] else "Managed"
    if wanted.endpoint_compute_type != kind:
        raise Invalid(
            "deployment",
            f"{endpoint.name} is a {kind} endpoint: its deployments are {kind}OnlineDeployment.",
        )


def specify(asked: Asked, before: DeploymentSpec | None, *, restart: bool) -> DeploymentSpec:
    """What is wanted of a deployment; `restart` replaces its containers by others of equal spec.

    Raises
    ------
    Fault
        As `make_container_spec`.
    """
    wanted = asked.properties
    container_spec = make_container_spec(wanted)
    if before is not None:
        generation = before.container_spec.generation + restart
        container_spec = dataclasses.replace(container_spec, generation=generation)
    return DeploymentSpec(
        container_spec,
        instance_count(asked),
        (wanted.request_settings or RequestSettings()).limits,
        wanted.description or "",
        texts(asked.tags or {}),
        texts(wanted.properties or {}),
        other=wanted,
    )


def instance_count(asked: Asked) -> int:
    """What runs: of instances that would scale on Azure, as many as there are at least."""
    scale = asked.properties.scale_settings
    if scale is not None and scale.scale_type == "TargetUtilization":
        return scale.min_instances or 1
    return (asked.sku and asked.sku.capacity) or 1


def make_container_spec(wanted: Properties) -> ContainerSpec:
    """What the containers are made of.

    Raises
    ------
    NotFound
        If the model, the environment or the code is not registered.
    NotSupported
        For what only an image or Azure could give.
    """
    code = wanted.code_configuration
    if code is None:
        raise NotSupported("a deployment without code_configuration (MLflow, Triton, own image)")
    for field in ("data_collector", "model_mount_path", "private_network_connection"):
        if getattr(wanted, field):
            raise NotSupported(f"a deployment with {field}")
    source = find(Code, "codes", code.code_id)
    model = find(Model, "models", wanted.model)
    environment = find(Environment, "environments", wanted.environment_id)
    settings = wanted.request_settings or RequestSettings()
    milliseconds = (settings.request_timeout or REQUEST_TIMEOUT) / timedelta(milliseconds=1)
    cpu_cores, memory_gb = size_of(wanted)
    return ContainerSpec(
        script=code.scoring_script,
        uploads=tuple(Upload(path) for path in source.artifacts) if source else (),
        models=(model,) if model else (),
        conda=environment.conda if environment else None,
        environment=environment.id if environment else "",
        variables={
            **(environment.variables if environment else {}),
            "SCORING_TIMEOUT_MS": str(max(1, round(milliseconds))),
            **{name: value or "" for name, value in (wanted.environment_variables or {}).items()},
        },
        cpu_cores=cpu_cores,
        memory_gb=memory_gb,
        insights=bool(wanted.app_insights_enabled),
        liveness=wanted.liveness_probe.settings if wanted.liveness_probe else None,
        warnings=tuple(notes(wanted)),
    )


def find(kind: type[Asset], plural: str, asset_id: str | None) -> Asset | None:
    """The asset of an id; None where there is none to find."""
    if not asset_id:
        return None
    if asset_id.startswith(("azureml://registries", "azureml:")):
        raise NotSupported(f"{asset_id}: registries, and the environments that Azure brings")
    return store().get(kind, *parse_asset_id(plural, asset_id))


def size_of(wanted: Properties) -> tuple[float, float]:
    """(cores, memory in GB) of an instance."""
    if wanted.endpoint_compute_type == "Managed":
        return instance_size(wanted.instance_type or MANAGED_SIZE)
    asked = wanted.container_resource_requirements or ContainerResources()
    given = (asked.container_resource_requests or {}) | (asked.container_resource_limits or {})
    size = KUBERNETES_SIZE | {name: value for name, value in given.items() if value}
    if size.get("gpu", "0") != "0":
        raise NotSupported("a deployment with GPUs")
    return quantity(size["cpu"]), quantity(size["memory"]) / 2**30


def notes(wanted: Properties) -> Iterator[str]:
    """What is another way here than was asked for."""
    if wanted.scale_settings and wanted.scale_settings.scale_type == "TargetUtilization":
        yield "scale_settings: nothing scales by itself here; min_instances run"


@deployment_api.delete(f"{DEPLOYMENTS}/<deployment>")
def delete_deployment(endpoint: str, deployment: str, **_: str) -> Response:
    def change(spec: EndpointSpec) -> EndpointSpec:
        if spec.traffic.get(deployment):
            raise Conflict(
                "deployment",
                f"{deployment} gets {spec.traffic[deployment]} % of the traffic of {endpoint}. "
                "Give it to another deployment first.",
            )
        left = {name: each for name, each in spec.deployments.items() if name != deployment}
        mirror = {name: share for name, share in spec.mirror.items() if name != deployment}
        return dataclasses.replace(spec, deployments=left, mirror=mirror)

    if deployment not in find_endpoint(endpoint).deployments:
        return Response(status=204)
    endpoints().change(KIND, endpoint, change).wait(CHANGE_LIMIT)
    return Response(status=200)


@deployment_api.post(f"{DEPLOYMENTS}/<deployment>/getLogs")
def show_logs(endpoint: str, deployment: str, **_: str) -> Response:
    asked = body(LogRequest)
    if asked.container_type == "StorageInitializer":
        return jsonify(content="The local workspace has no storage initializer.")
    found = find_deployment(find_endpoint(endpoint), deployment)
    return jsonify(content=found.log_tail(LOG_LINES if asked.tail is None else asked.tail))


def describe(endpoint: Endpoint, name: str, running: Deployment) -> Document:
    spec = running.spec
    own: Properties = spec.other
    properties = {name: value for name, value in to_builtins(own).items() if value is not None}
    properties |= {
        "scaleSettings": properties.get("scaleSettings", {"scaleType": "Default"}),
        "environmentVariables": properties.get("environmentVariables", {}),
        "description": spec.description,
        "properties": spec.properties,
        "provisioningState": STATES.get(running.state, "Succeeded"),
    }
    if own.endpoint_compute_type == "Kubernetes":
        properties.setdefault(
            "containerResourceRequirements", {"containerResourceLimits": KUBERNETES_SIZE}
        )
    return resource(
        ("onlineEndpoints", endpoint.name, "deployments", name),
        properties,
        running.created,
        running.updated,
        location=LOCATION,
        kind=own.endpoint_compute_type,
        tags=spec.tags,
        sku={"name": "Default", "capacity": spec.replicas},
        identity=IDENTITY,
    )
