"""Online endpoints, managed and on Kubernetes: an address, its keys and its traffic."""

from __future__ import annotations

import dataclasses
import re
from typing import Annotated

from flask import Blueprint, Response, jsonify
from msgspec import Meta, Struct

from ..bodies import Document, Labels, body, texts
from ..core.endpoints import Endpoint, EndpointSpec
from ..core.faults import Conflict, Invalid, NotSupported
from ..rest import WORKSPACE, Regeneration, endpoints, regenerate_key, serialize_keys
from .resources import IDENTITY, LOCATION, page, resource

KIND = "endpoint"
ENDPOINTS = f"{WORKSPACE}/onlineEndpoints"
NAME = re.compile("[A-Za-z][A-Za-z0-9-]{1,30}[A-Za-z0-9]")
NAME_RULE = "3 to 32 letters, digits and '-', a letter first and no '-' last"
MODES = {"key": ("key", "Key"), "amltoken": ("token", "AMLToken")}  # here, and in answers
TOKEN_LIFE = 12 * 3600.0  # seconds
CHANGE_LIMIT = 100.0  # seconds that a change of traffic may take
MOST_MIRRORED = 50  # percent

endpoint_api = Blueprint("endpoints", __name__)

Percent = Annotated[int, Meta(ge=0, le=100)]


class Keys(Struct, rename="camel"):
    primary_key: str | None = None
    secondary_key: str | None = None


class Properties(Struct, rename="camel"):
    auth_mode: str = "Key"
    description: str | None = None
    properties: Labels | None = None
    traffic: dict[str, Percent] | None = None
    mirror_traffic: dict[str, Percent] | None = None
    compute: str | None = None
    public_network_access: str | None = None
    keys: Keys | None = None


class Asked(Struct):
    properties: Properties
    tags: Labels | None = None


def find_endpoint(name: str) -> Endpoint:
    return endpoints().get(KIND, name)


@endpoint_api.get(ENDPOINTS)
def list_endpoints(**_: str) -> Response:
    return jsonify(page(endpoints().all(KIND), describe))


@endpoint_api.get(f"{ENDPOINTS}/<endpoint>")
def show_endpoint(endpoint: str, **_: str) -> Response:
    return jsonify(describe(find_endpoint(endpoint)))


@endpoint_api.put(f"{ENDPOINTS}/<endpoint>")
def put_endpoint(endpoint: str, **_: str) -> Response:
    """Create an endpoint or change it; answered when it is so, for the SDK asks each 30 s."""
    asked = body(Asked)
    if not NAME.fullmatch(endpoint):
        raise Invalid("endpoint", f"{endpoint!r} is no name for an endpoint: {NAME_RULE}.")
    is_new = endpoints().find(KIND, endpoint) is None
    operation = endpoints().put(KIND, endpoint, lambda spec: changed(spec, asked))
    operation.wait(CHANGE_LIMIT)
    if operation.error is not None:
        raise operation.error
    answer = jsonify(describe(find_endpoint(endpoint)))
    answer.status_code = 201 if is_new else 200
    return answer


def changed(spec: EndpointSpec | None, asked: Asked) -> EndpointSpec:
    """What is wanted of an endpoint from now on.

    Raises
    ------
    Invalid
        If the traffic cannot be shared as asked for.
    NotSupported
        If it asks for identities of Azure.
    """
    wanted = asked.properties
    if wanted.auth_mode.lower() not in MODES:
        raise NotSupported(f"auth_mode {wanted.auth_mode}: it needs identities of Azure")
    mode, _ = MODES[wanted.auth_mode.lower()]
    spec = spec or EndpointSpec()
    keys = wanted.keys or Keys()
    spec = dataclasses.replace(
        spec,
        authentication=mode,
        primary_key=keys.primary_key or spec.primary_key,
        secondary_key=keys.secondary_key or spec.secondary_key,
        traffic=spec.traffic if wanted.traffic is None else shares(wanted.traffic),
        mirror=spec.mirror if wanted.mirror_traffic is None else shares(wanted.mirror_traffic),
        description=wanted.description or "",
        tags=texts(asked.tags or {}),
        properties=texts(wanted.properties or {}),
        compute=(wanted.compute or "").rpartition("/")[2],
        other={
            "compute": wanted.compute,
            "publicNetworkAccess": wanted.public_network_access or "Enabled",
        },
    )
    check_traffic(spec)
    return spec


def shares(traffic: dict[str, int]) -> dict[str, int]:
    return {name: share for name, share in traffic.items() if share}


def check_traffic(spec: EndpointSpec) -> None:
    for name in [*spec.traffic, *spec.mirror]:
        if name not in spec.deployments:
            raise Invalid("traffic", f"There is no deployment {name} that could get traffic.")
    total = sum(spec.traffic.values())
    if total not in (0, 100):
        raise Invalid("traffic", f"The traffic adds up to {total} %, expected 0 or 100.")
    if len(spec.mirror) > 1 or sum(spec.mirror.values()) > MOST_MIRRORED:
        raise Invalid("traffic", "At most 50 % can be mirrored, and to one deployment.")
    if spec.mirror.keys() & spec.traffic.keys():
        raise Invalid("traffic", "A deployment that gets traffic gets no mirrored traffic as well.")


@endpoint_api.delete(f"{ENDPOINTS}/<endpoint>")
def delete_endpoint(endpoint: str, **_: str) -> Response:
    if endpoints().find(KIND, endpoint) is None:
        return Response(status=204)
    endpoints().delete(KIND, endpoint)
    return Response(status=200)


@endpoint_api.post(f"{ENDPOINTS}/<endpoint>/listKeys")
def list_keys(endpoint: str, **_: str) -> Response:
    spec = find_endpoint(endpoint).spec
    check_mode(endpoint, spec, "key")
    return jsonify(serialize_keys(spec))


@endpoint_api.post(f"{ENDPOINTS}/<endpoint>/regenerateKeys")
def regenerate_keys(endpoint: str, **_: str) -> Response:
    """Make a new key; the `key_value` that SDK v2 sends is the present one."""
    which = body(Regeneration).key_type
    change = regenerate_key(
        KIND, endpoint, which, check=lambda spec: check_mode(endpoint, spec, "key")
    )
    change.wait(CHANGE_LIMIT)
    return Response(status=200)


@endpoint_api.post(f"{ENDPOINTS}/<endpoint>/token")
def issue_token(endpoint: str, **_: str) -> Response:
    found = find_endpoint(endpoint)
    check_mode(endpoint, found.spec, "token")
    token, end = found.issue_token(TOKEN_LIFE)
    return jsonify(
        accessToken=token,
        tokenType="Bearer",
        expiryTimeUtc=int(end),
        refreshAfterTimeUtc=int(end - TOKEN_LIFE / 2),
    )


def check_mode(name: str, spec: EndpointSpec, mode: str) -> None:
    if spec.authentication != mode:
        raise Conflict("endpoint", f"The endpoint {name} does not use a {mode} for authentication.")


def describe(endpoint: Endpoint) -> Document:
    spec = endpoint.spec
    is_kubernetes = bool(spec.other["compute"])
    properties = {
        "authMode": dict(MODES.values())[spec.authentication],
        "description": spec.description,
        "properties": spec.properties,
        "traffic": spec.traffic,
        "mirrorTraffic": spec.mirror,
        "scoringUri": f"{endpoint.url}/score",
        "swaggerUri": f"{endpoint.url}/swagger.json",
        "provisioningState": "Succeeded",
        "publicNetworkAccess": spec.other["publicNetworkAccess"],
    }
    if is_kubernetes:
        properties["compute"] = spec.other["compute"]
    return resource(
        ("onlineEndpoints", endpoint.name),
        properties,
        endpoint.created,
        endpoint.updated,
        location=LOCATION,
        kind="K8S" if is_kubernetes else "Managed",
        tags=spec.tags,
        identity=IDENTITY,
    )
