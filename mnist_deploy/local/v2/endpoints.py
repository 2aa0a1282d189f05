"""Online endpoints, managed and on Kubernetes: an address, its keys and its traffic."""

from __future__ import annotations

import dataclasses
import re
from typing import Annotated, Any

from flask import Blueprint, Response, jsonify
from msgspec import Meta, Struct

from ..bodies import Document, Labels, body, texts
from ..core.endpoints import Endpoint, EndpointSpec
from ..core.faults import Conflict, Invalid, NotSupported
from ..core.records import Compute
from ..rest import WORKSPACE, Regeneration, endpoints, regenerate_key, serialize_keys, store
from ..validation import check_choice, is_placeholder
from .option_warnings import list_endpoint_warnings
from .resources import LOCATION, SYSTEM_IDENTITY, resource, serialize_list

KIND = "endpoint"
ENDPOINTS = f"{WORKSPACE}/onlineEndpoints"
NAME = re.compile("[A-Za-z][A-Za-z0-9-]{1,30}[A-Za-z0-9]")
NAME_RULE = "3 to 32 letters, digits and '-', beginning with a letter and not ending with '-'"
MODES = {"Key": "key", "AMLToken": "token"}  # EndpointAuthMode -> authentication in core
IDENTITY_TYPES = ("SystemAssigned", "UserAssigned", "SystemAssigned,UserAssigned", "None")
TOKEN_LIFETIME = 12 * 3600.0  # seconds
CHANGE_TIMEOUT = 100.0  # seconds that a response waits for a change of keys or traffic
MAX_MIRRORED = 50  # percent

endpoint_api = Blueprint("endpoints", __name__)

Percent = Annotated[int, Meta(ge=0, le=100)]


class EndpointKeys(Struct, rename="camel"):
    primary_key: str | None = None
    secondary_key: str | None = None


class EndpointProperties(Struct, rename="camel"):
    auth_mode: str = "Key"
    description: str | None = None
    properties: Labels | None = None
    traffic: dict[str, Percent] | None = None
    mirror_traffic: dict[str, Percent] | None = None
    compute: str | None = None
    public_network_access: str | None = None
    keys: EndpointKeys | None = None


class Identity(Struct, rename="camel"):
    type: str
    user_assigned_identities: dict[str, Any] | None = None


class EndpointRequest(Struct):
    properties: EndpointProperties
    identity: Identity | None = None
    tags: Labels | None = None


@dataclasses.dataclass(frozen=True)
class EndpointOptions:
    """The fields of an endpoint that only this API has.

    Attributes
    ----------
    compute : str or None
        The id of the Kubernetes cluster; None for a managed endpoint.
    identity : dict or None
        The identity in responses. None: the identity that Azure assigns by default.
    warnings : tuple of str
        Options that have another effect here than on Azure.
    """

    compute: str | None = None
    public_network_access: str = "Enabled"
    identity: Document | None = None
    warnings: tuple[str, ...] = ()


def find_endpoint(name: str) -> Endpoint:
    return endpoints().get(KIND, name)


@endpoint_api.get(ENDPOINTS)
def list_endpoints(**_: str) -> Response:
    return jsonify(serialize_list(endpoints().all(KIND), serialize_endpoint))


@endpoint_api.get(f"{ENDPOINTS}/<endpoint>")
def show_endpoint(endpoint: str, **_: str) -> Response:
    return jsonify(serialize_endpoint(find_endpoint(endpoint)))


@endpoint_api.put(f"{ENDPOINTS}/<endpoint>")
def put_endpoint(endpoint: str, **_: str) -> Response:
    """Create or update an endpoint, and respond after the change: the SDK polls every 30 s."""
    requested = body(EndpointRequest)
    if not NAME.fullmatch(endpoint):
        raise Invalid(
            "endpoint", f"{endpoint!r} is not a valid name of an endpoint. Expected {NAME_RULE}."
        )
    is_new = endpoints().find(KIND, endpoint) is None
    operation = endpoints().put(KIND, endpoint, lambda spec: update_endpoint_spec(spec, requested))
    operation.wait(CHANGE_TIMEOUT)
    if operation.error is not None:
        raise operation.error
    answer = jsonify(serialize_endpoint(find_endpoint(endpoint)))
    answer.status_code = 201 if is_new else 200
    return answer


def update_endpoint_spec(spec: EndpointSpec | None, requested: EndpointRequest) -> EndpointSpec:
    """The requested endpoint with the deployments of the present endpoint.

    Raises
    ------
    Invalid
        If Azure does not allow a value, or the shares of the traffic are not valid.
    NotSupported
        If Microsoft Entra tokens are requested.
    """
    properties = requested.properties
    mode = check_choice("auth_mode", properties.auth_mode, (*MODES, "AADToken"))
    if mode not in MODES:
        raise NotSupported("auth_mode aad_token, which requires Microsoft Entra ID")
    spec = spec or EndpointSpec()
    keys = properties.keys or EndpointKeys()
    spec = dataclasses.replace(
        spec,
        authentication=MODES[mode],
        primary_key=keys.primary_key or spec.primary_key,
        secondary_key=keys.secondary_key or spec.secondary_key,
        traffic=spec.traffic if properties.traffic is None else drop_zeros(properties.traffic),
        mirror=(
            spec.mirror
            if properties.mirror_traffic is None
            else drop_zeros(properties.mirror_traffic)
        ),
        description=properties.description or "",
        tags=texts(requested.tags or {}),
        properties=texts(properties.properties or {}),
        compute=find_cluster_name(properties.compute),
        other=make_endpoint_options(requested),
    )
    check_traffic(spec)
    return spec


def make_endpoint_options(requested: EndpointRequest) -> EndpointOptions:
    properties, identity = requested.properties, requested.identity
    access = check_choice(
        "public_network_access", properties.public_network_access, ("Enabled", "Disabled")
    )
    assigned = identity.user_assigned_identities if identity else None
    kind = (
        check_choice("identity.type", identity.type.replace(" ", ""), IDENTITY_TYPES)
        if identity
        else None
    )
    return EndpointOptions(
        properties.compute,
        access or "Enabled",
        serialize_identity(kind, assigned) if kind else None,
        tuple(list_endpoint_warnings(access or "Enabled", assigned)),
    )


def serialize_identity(kind: str, assigned: dict[str, Any] | None) -> Document:
    """The identity in Azure's schema, with placeholders as ids."""
    principal = {"principalId": SYSTEM_IDENTITY["principalId"]}
    answer: Document = {"type": kind}
    if kind.startswith("SystemAssigned"):
        answer |= principal | {"tenantId": SYSTEM_IDENTITY["tenantId"]}
    if assigned:
        own = principal | {"clientId": SYSTEM_IDENTITY["principalId"]}
        answer["userAssignedIdentities"] = dict.fromkeys(assigned, own)
    return answer


def find_cluster_name(compute: str | None) -> str:
    """The name in a compute's id; empty for a managed endpoint.

    Raises
    ------
    Invalid
        If there is no such Kubernetes cluster in the workspace.
    """
    if compute is None:
        return ""
    name = compute.rpartition("/")[2]
    if is_placeholder(name):
        return name
    cluster = store().find(Compute, name)
    if cluster is None or cluster.kind != "Kubernetes":
        known = [each.name for each in store().all(Compute) if each.kind == "Kubernetes"]
        raise Invalid(
            "compute",
            f"compute {name!r} is not a Kubernetes cluster of this workspace, which has: "
            f"{', '.join(known) or 'none'}. Attach a cluster with "
            "begin_create_or_update(KubernetesCompute(…)), and pass its name without azureml:.",
        )
    return name


def drop_zeros(traffic: dict[str, int]) -> dict[str, int]:
    return {name: share for name, share in traffic.items() if share}


def check_traffic(spec: EndpointSpec) -> None:
    for name in [*spec.traffic, *spec.mirror]:
        if name not in spec.deployments:
            raise Invalid(
                "traffic",
                f"There is no deployment {name}: create it before you assign traffic to it.",
            )
    total = sum(spec.traffic.values())
    if total not in (0, 100):
        raise Invalid("traffic", f"The traffic adds up to {total} %, expected 0 or 100.")
    if len(spec.mirror) > 1 or sum(spec.mirror.values()) > MAX_MIRRORED:
        raise Invalid(
            "traffic", f"At most {MAX_MIRRORED} % can be mirrored, and to one deployment."
        )
    if spec.mirror.keys() & spec.traffic.keys():
        raise Invalid(
            "traffic",
            "A deployment cannot receive both traffic and mirrored traffic: expected one of them.",
        )


@endpoint_api.delete(f"{ENDPOINTS}/<endpoint>")
def delete_endpoint(endpoint: str, **_: str) -> Response:
    if endpoints().find(KIND, endpoint) is None:
        return Response(status=204)
    endpoints().delete(KIND, endpoint)
    return Response(status=200)


@endpoint_api.post(f"{ENDPOINTS}/<endpoint>/listKeys")
def list_keys(endpoint: str, **_: str) -> Response:
    spec = find_endpoint(endpoint).spec
    check_authentication(endpoint, spec, "key")
    return jsonify(serialize_keys(spec))


@endpoint_api.post(f"{ENDPOINTS}/<endpoint>/regenerateKeys")
def regenerate_keys(endpoint: str, **_: str) -> Response:
    """Generate a new key; `key_value` is ignored, because SDK v2 sends the present key."""
    which = body(Regeneration).key_type
    regenerate_key(
        KIND, endpoint, which, check=lambda spec: check_authentication(endpoint, spec, "key")
    ).wait(CHANGE_TIMEOUT)
    return Response(status=200)


@endpoint_api.post(f"{ENDPOINTS}/<endpoint>/token")
def issue_token(endpoint: str, **_: str) -> Response:
    found = find_endpoint(endpoint)
    check_authentication(endpoint, found.spec, "token")
    token, end = found.issue_token(TOKEN_LIFETIME)
    return jsonify(
        accessToken=token,
        tokenType="Bearer",
        expiryTimeUtc=int(end),
        refreshAfterTimeUtc=int(end - TOKEN_LIFETIME / 2),
    )


def check_authentication(name: str, spec: EndpointSpec, mode: str) -> None:
    if spec.authentication != mode:
        raise Conflict(
            "endpoint",
            f"The endpoint {name} does not use a {mode} for authentication: its auth_mode is "
            f"{spec.authentication}.",
        )


def serialize_endpoint(endpoint: Endpoint) -> Document:
    spec = endpoint.spec
    options: EndpointOptions = spec.other
    names = {core: rest for rest, core in MODES.items()}
    properties = {
        "authMode": names[spec.authentication],
        "description": spec.description,
        "properties": spec.properties,
        "traffic": spec.traffic,
        "mirrorTraffic": spec.mirror,
        "scoringUri": f"{endpoint.url}/score",
        "swaggerUri": f"{endpoint.url}/swagger.json",
        "provisioningState": "Succeeded",
        "publicNetworkAccess": options.public_network_access,
    }
    if options.compute:
        properties["compute"] = options.compute
    return resource(
        ("onlineEndpoints", endpoint.name),
        properties,
        endpoint.created,
        endpoint.updated,
        location=LOCATION,
        kind="K8S" if options.compute else "Managed",
        tags=spec.tags,
        identity=options.identity or SYSTEM_IDENTITY,
    )
