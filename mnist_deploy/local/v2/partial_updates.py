"""Partial updates: OnlineEndpoints_Update and OnlineDeployments_Update of Azure's REST API.

SDK v2 replaces an endpoint or a deployment as a whole. The client of ``mlflow.deployments`` in
azureml-mlflow sends partial updates of the traffic and of deployments.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from flask import Blueprint, Response
from msgspec import Struct, to_builtins

from ..bodies import Labels, body, convert, texts
from ..core.endpoints import EndpointSpec
from ..rest import endpoints
from .deployment_requests import DeploymentRequest
from .deployments import DEPLOYMENTS, find_deployment, start_deployment
from .endpoints import (
    CHANGE_TIMEOUT,
    ENDPOINTS,
    KIND,
    Percent,
    check_traffic,
    drop_zeros,
    find_endpoint,
    show_endpoint,
)

partial_update_api = Blueprint("partial_updates", __name__)


class EndpointTraffic(Struct, rename="camel"):
    traffic: dict[str, Percent] | None = None
    mirror_traffic: dict[str, Percent] | None = None


class EndpointUpdate(Struct):
    properties: EndpointTraffic | None = None
    tags: Labels | None = None


class DeploymentUpdate(Struct):
    """Newer API versions send only `sku` and `tags`; azureml-mlflow sends all fields."""

    properties: dict[str, Any] | None = None
    sku: dict[str, Any] | None = None
    tags: Labels | None = None


@partial_update_api.patch(f"{ENDPOINTS}/<endpoint>")
def update_endpoint(endpoint: str, **_: str) -> Response:
    """Change the fields that the request names, and respond after the change, as for a PUT."""
    requested = body(EndpointUpdate)
    properties = requested.properties or EndpointTraffic()

    def change(spec: EndpointSpec) -> EndpointSpec:
        traffic, mirror = properties.traffic, properties.mirror_traffic
        changed = dataclasses.replace(
            spec,
            traffic=spec.traffic if traffic is None else drop_zeros(traffic),
            mirror=spec.mirror if mirror is None else drop_zeros(mirror),
            tags=spec.tags if requested.tags is None else texts(requested.tags),
        )
        check_traffic(changed)
        return changed

    operation = endpoints().change(KIND, endpoint, change)
    operation.wait(CHANGE_TIMEOUT)
    if operation.error is not None:
        raise operation.error
    return show_endpoint(endpoint)


@partial_update_api.patch(f"{DEPLOYMENTS}/<deployment>")
def update_deployment(endpoint: str, deployment: str, **_: str) -> Response:
    """Change the fields that the request names; a property that is null keeps its value."""
    requested = body(DeploymentUpdate)
    spec = find_deployment(find_endpoint(endpoint), deployment).spec
    named = {key: value for key, value in (requested.properties or {}).items() if value is not None}
    present = {"description": spec.description, "properties": spec.properties}
    document = {
        "properties": to_builtins(spec.other) | present | named,
        "sku": {"capacity": spec.replicas} | (requested.sku or {}),
        "tags": spec.tags if requested.tags is None else requested.tags,
    }
    response = start_deployment(endpoint, deployment, convert(document, DeploymentRequest))
    response.status_code = 202
    return response
