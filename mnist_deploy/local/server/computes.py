"""Clusters to which services are deployed: records without machines."""

from __future__ import annotations

import re
from typing import Any

from flask import Blueprint, Response, jsonify, request, url_for
from msgspec import Struct

from ..bodies import Document, Labels, body, convert, texts
from ..core.faults import InUse, Invalid, NotSupported
from ..core.records import Compute, now
from ..rest import ASYNC_OPERATION, WORKSPACE, endpoints, store
from ..validation import is_placeholder
from . import training_clusters

COMPUTES = f"{WORKSPACE}/computes"
OTHER_COMPUTES = f"/rp/workspaces{COMPUTES}"  # from which SDK v1 reads computes
NAME = re.compile(r"[A-Za-z][-A-Za-z0-9]{1,31}")
KINDS = ("AKS", "Kubernetes", training_clusters.KIND)
DESCRIPTION = (
    "A cluster of the local workspace, without machines: services that are deployed to it run as "
    "processes of this machine."
)

compute_api = Blueprint("computes", __name__)


class Ssl(Struct, rename="camel"):
    """The interpreted fields of a TLS configuration; the certificate and its key are dropped."""

    status: str | None = None
    cname: str | None = None
    leaf_domain_label: str | None = None


class Settings(Struct, rename="camel"):
    agent_count: int | None = None
    agent_vm_size: str | None = None
    cluster_purpose: str | None = None
    ssl_configuration: Ssl | None = None
    aks_networking_configuration: dict[str, Any] | None = None
    load_balancer_type: str | None = None
    load_balancer_subnet: str | None = None
    namespace: str | None = None


class Properties(Struct, rename="camel"):
    compute_type: str
    description: str | None = None
    resource_id: str | None = None
    properties: Document | None = None


class ComputeRequest(Struct):
    properties: Properties
    tags: Labels | None = None
    identity: Document | None = None


@compute_api.put(f"{COMPUTES}/<compute>")
def put_compute(compute: str, **_: str) -> Response:
    requested = body(ComputeRequest)
    properties = requested.properties
    if properties.compute_type not in KINDS:
        raise NotSupported(
            f"computes of type {properties.compute_type}, only {' and '.join(KINDS)}"
        )
    if not NAME.fullmatch(compute) and not is_placeholder(compute):
        raise Invalid(
            "compute name",
            f"{compute!r} is not a valid name of a compute. Expected 2 to 32 letters, digits and "
            "'-', beginning with a letter.",
        )
    select_settings = (
        training_clusters.settings_to_keep
        if properties.compute_type == training_clusters.KIND
        else settings_to_keep
    )
    has_identity = str((requested.identity or {}).get("type") or "None") != "None"
    record = Compute(
        compute,
        properties.compute_type,
        now(),
        description=properties.description or "",
        tags=texts(requested.tags),
        resource_id=properties.resource_id or "",
        settings=select_settings(properties.properties or {})
        | ({"identity": True} if has_identity else {}),
    )
    with store().transaction():
        before = store().find(Compute, compute)
        if before is not None:
            store().delete(Compute, compute, before.version)
        store().put(record)
    return with_operation(
        jsonify(serialize_compute(record)), compute, 201 if before is None else 200
    )


def settings_to_keep(sent: Document) -> Document:
    settings = convert(sent, Settings)
    if settings.aks_networking_configuration:
        raise NotSupported("clusters in a virtual network (vnet_name)")
    if re.match("standard_n", settings.agent_vm_size or "", re.IGNORECASE):
        raise NotSupported(f"clusters with GPUs (vm_size {settings.agent_vm_size})")
    ssl = settings.ssl_configuration
    return {
        "agentCount": settings.agent_count or 3,
        "agentVmSize": settings.agent_vm_size or "Standard_D3_v2",
        "clusterPurpose": settings.cluster_purpose or "FastProd",
        "clusterFqdn": "",
        "systemServices": [],
        "loadBalancerType": settings.load_balancer_type or "PublicIp",
        "loadBalancerSubnet": settings.load_balancer_subnet or "",
        "namespace": settings.namespace or "default",
        "sslConfiguration": {
            "status": (ssl and ssl.status) or "Disabled",
            "cname": (ssl and (ssl.cname or ssl.leaf_domain_label)) or "",
        },
    }


def with_operation(answer: Response, compute: str, status: int) -> Response:
    """Add the URL at which the SDK polls the operation to `answer`."""
    answer.status_code = status
    view = {**(request.view_args or {}), "compute": compute}
    answer.headers[ASYNC_OPERATION] = url_for("computes.show_operation", _external=True, **view)
    return answer


@compute_api.get(f"{COMPUTES}/<compute>/operations/last")
def show_operation(**_: str) -> Response:
    """Report success: each operation on a compute has ended before its response is sent."""
    return jsonify(status="Succeeded")


@compute_api.get(f"{COMPUTES}/<compute>")
@compute_api.get(f"{OTHER_COMPUTES}/<compute>")
def show_compute(compute: str, **_: str) -> Response:
    return jsonify(serialize_compute(store().get(Compute, compute)))


@compute_api.get(COMPUTES)
@compute_api.get(OTHER_COMPUTES)
def list_computes(**_: str) -> Response:
    return jsonify(value=[serialize_compute(compute) for compute in store().all(Compute)])


def serialize_compute(compute: Compute) -> Document:
    root = request.path.removeprefix("/rp/workspaces").partition("/computes")[0]
    is_aks = compute.kind == "AKS"
    is_training = compute.kind == training_clusters.KIND
    if is_training:
        kept = training_clusters.serialize_settings(compute)
    else:
        kept = {
            name: value
            for name, value in compute.settings.items()
            if is_aks == (name != "namespace") and name != "identity"
        }
    description = training_clusters.describe(compute) if is_training else DESCRIPTION
    return {
        "id": f"{root}/computes/{compute.name}",
        "name": compute.name,
        "type": "Microsoft.MachineLearningServices/workspaces/computes",
        "location": "local",
        "tags": compute.tags,
        "properties": {
            "computeType": compute.kind,
            "computeLocation": "local",
            "description": " ".join(filter(None, [compute.description, description])),
            "resourceId": compute.resource_id,
            "createdOn": compute.created,
            "modifiedOn": compute.created,
            "provisioningState": "Succeeded",
            "provisioningErrors": [],
            "isAttachedCompute": bool(compute.resource_id),
            "properties": kept,
        },
    }


@compute_api.delete(f"{COMPUTES}/<compute>")
def delete_compute(compute: str, **_: str) -> Response:
    """Detach or delete a compute; both only delete its record."""
    if users := endpoints().on(compute):
        raise InUse("compute", compute, users)
    if store().find(Compute, compute) is None:
        return Response(status=204)
    store().delete(Compute, compute, "1")
    return with_operation(Response(), compute, 202)


@compute_api.post(f"{COMPUTES}/<compute>/listKeys")
def show_credentials(**_: str) -> Response:
    raise NotSupported("credentials of a cluster")
