"""Kubernetes clusters that are attached: here a name that an endpoint may be deployed to."""

from __future__ import annotations

import dataclasses
from typing import Any

from flask import Blueprint, Response, current_app, jsonify
from msgspec import Struct

from ..bodies import Document, Labels, body, texts
from ..core.faults import InUse, NotFound, NotSupported
from ..core.records import now
from .resources import LOCATION, WORKSPACE, endpoints, page, resource

COMPUTES = f"{WORKSPACE}/computes"

compute_api = Blueprint("computes", __name__)


class Properties(Struct, rename="camel"):
    compute_type: str
    description: str | None = None
    resource_id: str | None = None
    properties: dict[str, Any] | None = None


class Asked(Struct):
    properties: Properties
    tags: Labels | None = None


@dataclasses.dataclass(frozen=True)
class Cluster:
    name: str
    asked: Asked
    created: str = dataclasses.field(default_factory=now)


def clusters() -> dict[str, Cluster]:
    return current_app.extensions.setdefault("clusters", {})


@compute_api.get(COMPUTES)
def list_computes(**_: str) -> Response:
    return jsonify(page(list(clusters().values()), describe))


@compute_api.get(f"{COMPUTES}/<compute>")
def show_compute(compute: str, **_: str) -> Response:
    found = clusters().get(compute)
    if found is None:
        raise NotFound("compute", compute)
    return jsonify(describe(found))


@compute_api.put(f"{COMPUTES}/<compute>")
def attach_compute(compute: str, **_: str) -> Response:
    asked = body(Asked)
    if asked.properties.compute_type != "Kubernetes":
        raise NotSupported(f"computes of type {asked.properties.compute_type}, only Kubernetes")
    found = clusters()[compute] = Cluster(compute, asked)
    return jsonify(describe(found))


@compute_api.delete(f"{COMPUTES}/<compute>")
def detach_compute(compute: str, **_: str) -> Response:
    users = [each.name for each in endpoints().all("endpoint") if uses(each.spec.other, compute)]
    if users:
        raise InUse("compute", compute, users)
    return Response(status=200 if clusters().pop(compute, None) else 204)


def uses(other: Document, compute: str) -> bool:
    return str(other["compute"] or "").rpartition("/")[2] == compute


def describe(cluster: Cluster) -> Document:
    asked = cluster.asked.properties
    properties = {
        "computeType": "Kubernetes",
        "computeLocation": LOCATION,
        "description": asked.description or "A name: no cluster is behind it here",
        "resourceId": asked.resource_id,
        "provisioningState": "Succeeded",
        "provisioningErrors": None,
        "isAttachedCompute": True,
        "createdOn": cluster.created,
        "properties": asked.properties or {"namespace": "default"},
    }
    return resource(
        ("computes", cluster.name),
        properties,
        cluster.created,
        location=LOCATION,
        tags=texts(cluster.asked.tags),
    )
