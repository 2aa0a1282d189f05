"""Web services: the routes that deploy, return, change and delete them; logs, keys and tokens."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Annotated

from flask import Blueprint, Response, jsonify
from msgspec import Meta, Struct, to_builtins

from ..bodies import Document, body, query
from ..core.endpoints import Endpoint, EndpointSpec
from ..core.faults import Conflict, Invalid, NotSupported
from ..core.records import Model
from ..rest import Regeneration, endpoints, regenerate_key, serialize_keys
from . import aci, aks
from .configuration import CONTAINER_SPECS, ServiceRequest, apply_service_patch, check_key
from .errors import serialize_fault
from .models import (
    CREATOR,
    MMS,
    PatchOperation,
    has_labels,
    serialize_model,
    serialize_model_details,
)
from .operations import make_accepted_response

REFRESH_TOKENS_AFTER = 3600  # seconds
TOKEN_LIFETIME = 13 * 3600  # seconds

Specify = Callable[[ServiceRequest, EndpointSpec | None, bool], EndpointSpec]
KINDS: dict[str, Specify] = {
    "ACI": aci.make_aci_spec,
    "AKS": aks.make_aks_spec,
    "AKSENDPOINT": aks.make_aks_endpoint_spec,
}

service_api = Blueprint("services", __name__)


def find_service(name: str) -> Endpoint:
    return endpoints().get("service", name)


@service_api.post(f"{MMS}/services/validate/name/<name>")
def validate_name(name: str, **_: str) -> Response:
    """Check that a name is free; the SDK calls this before a deployment without overwrite."""
    if endpoints().find("service", name) is None:
        return jsonify({})
    return jsonify(error={"code": "ServiceAlreadyExists", "message": str(make_conflict(name))})


def make_conflict(name: str) -> Conflict:
    return Conflict(
        "service",
        f"There is a service {name} already. Delete it, deploy with overwrite=True, or choose "
        "another name.",
    )


@service_api.post(f"{MMS}/services/validate")
@service_api.post(f"{MMS}/services/validate/resource")
def validate(**_: str) -> Response:
    return jsonify({})


@service_api.post(f"{MMS}/services")
def create_service(**_: str) -> Response:
    requested = body(ServiceRequest)
    if requested.compute_type not in KINDS:
        raise NotSupported(
            f"web services of compute type {requested.compute_type}, only {', '.join(KINDS)}"
        )
    specify = KINDS[requested.compute_type]

    def create(present: EndpointSpec | None) -> EndpointSpec:
        if present and not requested.overwrite:
            raise make_conflict(requested.name)
        return specify(requested, present, False)

    return make_accepted_response(endpoints().put("service", requested.name, create))


class ServiceQuery(Struct, rename="camel"):
    compute_type: str = ""
    tags: str | None = None
    properties: str | None = None
    model_id: str = ""
    model_name: str = ""
    image_id: str = ""
    image_name: str = ""
    image_digest: str = ""


@service_api.get(f"{MMS}/services")
def list_services(**_: str) -> Response:
    requested = query(ServiceQuery)
    return jsonify(
        value=[
            serialize_service(s)
            for s in endpoints().all("service")
            if matches_service_query(s, requested)
        ]
    )


def matches_service_query(service: Endpoint, requested: ServiceQuery) -> bool:
    request: ServiceRequest = service.spec.other
    models, image = models_of(service), request.image_id or ""
    return (
        requested.compute_type.upper() in ("", request.compute_type)
        and has_labels(service.spec.tags, requested.tags)
        and has_labels(service.spec.properties, requested.properties)
        and requested.model_id in ("", *(model.id for model in models))
        and requested.model_name in ("", *(model.name for model in models))
        and requested.image_id in ("", image)
        and requested.image_name in ("", image.partition(":")[0])
        and not requested.image_digest  # the images of the local workspace have no digest
    )


def models_of(service: Endpoint) -> list[Model]:
    deployments = service.spec.deployments.values()
    return [model for each in deployments for model in each.container_spec.models]


@service_api.get(f"{MMS}/services/<name>")
def show_service(name: str, **_: str) -> Response:
    return jsonify(serialize_service(find_service(name)))


def serialize_service(service: Endpoint) -> Document:
    common: Document = {
        "id": service.name,
        "name": service.name,
        "description": service.spec.description,
        "kvTags": service.spec.tags,
        "properties": service.spec.properties,
        "operationId": service.operation.id,
        "state": service.state,
        "createdTime": service.created,
        "updatedTime": service.updated,
        "createdBy": CREATOR,
        "deploymentType": "HttpRealtimeEndpoint",
        "scoringUri": f"{service.url}/score",
    }
    match service.spec.other.compute_type:
        case "ACI":
            own = aci.serialize_aci_service(service) | serialize_deployment(service, service.name)
        case "AKS":
            own = aks.serialize_aks_service(service) | serialize_deployment(service, service.name)
        case _:
            versions = {
                name: common
                | {"id": name, "name": name}
                | aks.serialize_aks_version(service, name)
                | serialize_deployment(service, name)
                for name in service.spec.deployments
            }
            errors = [v["error"] for v in versions.values() if "error" in v]
            own = aks.serialize_aks_endpoint(service) | {"versions": versions}
            own |= {"error": errors[0]} if errors else {}
    return common | own


def serialize_deployment(service: Endpoint, name: str) -> Document:
    """The fields that a service and a version of an endpoint have in common."""
    spec, running = service.spec.deployments[name], service.deployments[name]
    requested = to_builtins(spec.other)
    return {
        "description": spec.description,
        "kvTags": spec.tags,
        "properties": spec.properties,
        "state": running.state,
        "appInsightsEnabled": bool(spec.other.app_insights_enabled),
        "models": [
            serialize_model_details(serialize_model(model)) for model in spec.container_spec.models
        ],
        **({"error": serialize_fault(running.error)} if running.error else {}),
        **{name: requested[name] for name in CONTAINER_SPECS if requested[name]},
    }


@service_api.patch(f"{MMS}/services/<name>")
def update_service(name: str, **_: str) -> Response:
    changes = body(list[PatchOperation])

    def update(present: EndpointSpec) -> EndpointSpec:
        requested = apply_service_patch(present.other, changes)
        return KINDS[requested.compute_type or ""](requested, present, True)

    return make_accepted_response(endpoints().change("service", name, update))


@service_api.delete(f"{MMS}/services/<name>")
def delete_service(name: str, **_: str) -> Response:
    if endpoints().find("service", name) is None:
        return Response(status=204)
    endpoints().delete("service", name)
    return Response(status=200)


class ServiceLogQuery(Struct):
    tail: Annotated[int, Meta(ge=0)] = 5000


@service_api.get(f"{MMS}/services/<name>/logs")
def show_logs(name: str, **_: str) -> Response:
    lines = query(ServiceLogQuery).tail
    deployments = find_service(name).deployments
    if len(deployments) == 1:
        [deployment] = deployments.values()
        return jsonify(content=deployment.log_tail(lines))
    share = lines // max(1, len(deployments))
    logs = (f"=== version {n} ===\n{d.log_tail(share)}" for n, d in list(deployments.items()))
    return jsonify(content="\n".join(logs))


@service_api.post(f"{MMS}/services/<name>/listkeys")
def list_keys(name: str, **_: str) -> Response:
    return jsonify(serialize_keys(find_service(name).spec))


@service_api.post(f"{MMS}/services/<name>/regenerateKeys")
def regenerate_service_key(name: str, **_: str) -> Response:
    requested = body(Regeneration)
    check_key(requested.key_value)
    return make_accepted_response(
        regenerate_key("service", name, requested.key_type, requested.key_value or "")
    )


@service_api.post(f"{MMS}/services/<name>/token")
def issue_token(name: str, **_: str) -> Response:
    service = find_service(name)
    if service.spec.authentication != "token":
        raise Invalid(
            "authentication",
            f"The service {name} does not use tokens: deploy it with token_auth_enabled=True.",
        )
    token, end = service.issue_token(TOKEN_LIFETIME)
    issued = jsonify(
        accessToken=token,
        tokenType="Bearer",
        refreshAfter=int(time.time()) + REFRESH_TOKENS_AFTER,
        expiryOn=int(end),
    )
    issued.status_code = 201
    return issued
