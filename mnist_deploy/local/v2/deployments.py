"""Online deployments: script, model and environment, on a number of instances of an endpoint."""

from __future__ import annotations

import dataclasses
from typing import Annotated

from flask import Blueprint, Response, jsonify
from msgspec import Meta, Struct, to_builtins

from ..bodies import Document, body, texts
from ..core.deployments import Deployment, DeploymentSpec
from ..core.endpoints import Endpoint, EndpointSpec
from ..core.faults import Conflict, Invalid, NotFound
from ..rest import endpoints
from .container_specs import KUBERNETES_SIZE, make_container_spec
from .deployment_requests import DeploymentProperties, DeploymentRequest
from .endpoints import CHANGE_TIMEOUT, ENDPOINTS, KIND, NAME, NAME_RULE, find_endpoint
from .operations import operation_headers
from .resources import LOCATION, SYSTEM_IDENTITY, resource, serialize_list

DEPLOYMENTS = f"{ENDPOINTS}/<endpoint>/deployments"
LOG_LINES = 1000
STATES = {"Transitioning": "Updating", "Failed": "Failed"}  # any other state means Succeeded

deployment_api = Blueprint("deployments", __name__)


class LogRequest(Struct, rename="camel"):
    tail: Annotated[int, Meta(ge=0)] | None = None
    container_type: str | None = None


@deployment_api.get(DEPLOYMENTS)
def list_deployments(endpoint: str, **_: str) -> Response:
    found = find_endpoint(endpoint)
    return jsonify(
        serialize_list(found.deployments.items(), lambda item: serialize_deployment(found, *item))
    )


@deployment_api.get(f"{DEPLOYMENTS}/<deployment>")
def show_deployment(endpoint: str, deployment: str, **_: str) -> Response:
    found = find_endpoint(endpoint)
    return jsonify(serialize_deployment(found, deployment, find_deployment(found, deployment)))


def find_deployment(endpoint: Endpoint, name: str) -> Deployment:
    found = endpoint.deployments.get(name)
    if found is None:
        raise NotFound("deployment", f"{name} of endpoint {endpoint.name}")
    return found


@deployment_api.put(f"{DEPLOYMENTS}/<deployment>")
def put_deployment(endpoint: str, deployment: str, **_: str) -> Response:
    """Create a deployment or change it."""
    return start_deployment(endpoint, deployment, body(DeploymentRequest))


def start_deployment(endpoint: str, deployment: str, requested: DeploymentRequest) -> Response:
    """Start a change and respond at once; the SDK polls the operation."""
    requested.properties.check()
    if not NAME.fullmatch(deployment):
        raise Invalid(
            "deployment",
            f"{deployment!r} is not a valid name of a deployment. Expected {NAME_RULE}.",
        )
    found = find_endpoint(endpoint)
    check_compute_type(found, requested.properties)

    def update(spec: EndpointSpec) -> EndpointSpec:
        running, before = found.deployments.get(deployment), spec.deployments.get(deployment)
        has_failed = running is not None and running.error is not None
        desired = make_deployment_spec(requested, spec, before, restart=has_failed)
        return dataclasses.replace(spec, deployments=spec.deployments | {deployment: desired})

    operation = endpoints().change(KIND, endpoint, update)
    answer = show_deployment(endpoint, deployment)  # 404 if the endpoint was deleted meanwhile
    answer.status_code = 201
    answer.headers |= operation_headers(operation)
    return answer


def check_compute_type(endpoint: Endpoint, properties: DeploymentProperties) -> None:
    kind = "Kubernetes" if endpoint.spec.other.compute else "Managed"
    if properties.endpoint_compute_type != kind:
        raise Invalid(
            "deployment",
            f"{endpoint.name} is a {kind} endpoint: its deployments are {kind}OnlineDeployment.",
        )


def make_deployment_spec(
    requested: DeploymentRequest,
    endpoint: EndpointSpec,
    before: DeploymentSpec | None,
    *,
    restart: bool,
) -> DeploymentSpec:
    """The spec of the requested deployment; with `restart`, even equal containers are replaced.

    Raises
    ------
    Fault
        As `make_container_spec`.
    """
    properties = requested.properties
    container_spec = make_container_spec(properties)
    container_spec = dataclasses.replace(
        container_spec,
        warnings=(*endpoint.other.warnings, *container_spec.warnings),
        generation=0 if before is None else before.container_spec.generation + restart,
    )
    return DeploymentSpec(
        container_spec,
        requested.instance_count,
        properties.limits,
        properties.description or "",
        texts(requested.tags or {}),
        texts(properties.properties or {}),
        other=properties,
    )


@deployment_api.delete(f"{DEPLOYMENTS}/<deployment>")
def delete_deployment(endpoint: str, deployment: str, **_: str) -> Response:
    def remove(spec: EndpointSpec) -> EndpointSpec:
        if spec.traffic.get(deployment):
            raise Conflict(
                "deployment",
                f"{deployment} gets {spec.traffic[deployment]} % of the traffic of {endpoint}. "
                "Assign its traffic to another deployment first.",
            )
        left = {name: each for name, each in spec.deployments.items() if name != deployment}
        mirror = {name: share for name, share in spec.mirror.items() if name != deployment}
        return dataclasses.replace(spec, deployments=left, mirror=mirror)

    if deployment not in find_endpoint(endpoint).deployments:
        return Response(status=204)
    endpoints().change(KIND, endpoint, remove).wait(CHANGE_TIMEOUT)
    return Response(status=200)


@deployment_api.post(f"{DEPLOYMENTS}/<deployment>/getLogs")
def show_logs(endpoint: str, deployment: str, **_: str) -> Response:
    requested = body(LogRequest)
    if requested.container_type == "StorageInitializer":
        return jsonify(content="The local workspace has no storage initializer.")
    found = find_deployment(find_endpoint(endpoint), deployment)
    return jsonify(content=found.log_tail(LOG_LINES if requested.tail is None else requested.tail))


def serialize_deployment(endpoint: Endpoint, name: str, running: Deployment) -> Document:
    spec = running.spec
    own: DeploymentProperties = spec.other
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
        identity=endpoint.spec.other.identity or SYSTEM_IDENTITY,
    )
