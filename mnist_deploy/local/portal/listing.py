"""The listings of the page and of ``show`` as JSON: services, models, environments.

Each listed field is named explicitly, so that a service's key is never listed by mistake.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeVar

from ..core.deployments import Deployment
from ..core.endpoints import Endpoint, Endpoints
from ..core.records import Environment, Model
from ..core.store import Store
from ..core.telemetry import BUCKETS, summary_of
from .downloads import definition
from .lineage import find_run_id, list_model_users, list_users
from .local_services import list_local_services, serialize_local_service

if TYPE_CHECKING:
    from ..core.local_containers import LocalContainers

Shown = dict[str, Any]
Record = TypeVar("Record", Endpoint, Model, Environment)
MAX_TRACES = 50  # lines of a service's telemetry, the latest

log = logging.getLogger(__name__)


def describe_workspace(
    store: Store, endpoints: Endpoints, local_containers: LocalContainers | None
) -> Shown:
    """List all deployed services and registered assets."""
    deployed = endpoints.all()
    return {
        "services": [
            *(listed(each, describe_endpoint) for each in deployed),
            *map(serialize_local_service, list_local_services(local_containers)),
        ],
        "models": [
            listed(each, lambda model: describe_model(model, store, deployed))
            for each in store.all(Model)
        ],
        "environments": [
            listed(each, lambda environment: describe_environment(environment, deployed))
            for each in store.all(Environment)
        ],
    }


def listed(record: Record, serialize: Callable[[Record], Shown]) -> Shown:
    """Return ``serialize(record)``; after an exception, the record's name and the reason."""
    try:
        return serialize(record)
    except Exception as error:  # of any class: the other records must stay visible
        log.exception("%s cannot be listed", record.name)
        shown = {"name": record.name, "broken": f"{type(error).__name__}: {error}"}
        if isinstance(record, Endpoint):
            return shown | {"kind": record.kind}
        return shown | {"version": str(record.version)}


def describe_endpoint(endpoint: Endpoint) -> Shown:
    spec = endpoint.spec
    return {
        "kind": endpoint.kind,
        "name": endpoint.name,
        "state": endpoint.state,
        "uri": f"{endpoint.url}/score",
        "authentication": spec.authentication,
        "description": spec.description,
        "tags": spec.tags,
        "properties": spec.properties,
        "created": endpoint.created,
        "usage": endpoint.usage,
        "traces": list(endpoint.telemetry.traces)[-MAX_TRACES:],
        "deployments": [
            describe_deployment(name, deployment, endpoint)
            for name, deployment in list(endpoint.deployments.items())
        ],
    }


def describe_deployment(name: str, deployment: Deployment, endpoint: Endpoint) -> Shown:
    spec, state = deployment.spec, deployment.state
    problem = None if state == "Transitioning" else deployment.problem
    return {
        "name": name,
        "state": state,
        "error": str(deployment.error or problem or ""),
        "notes": spec.container_spec.all_warnings,
        "traffic": endpoint.spec.traffic.get(name, 0),
        "mirror": endpoint.spec.mirror.get(name, 0),
        "models": [model.id for model in spec.container_spec.models],
        "replicas": spec.replicas,
        "cpu": spec.container_spec.cpu_cores,
        "memory": spec.container_spec.memory_gb,
        "created": deployment.created,
        "updated": deployment.updated,
        "usage": summary_of(deployment.requests, BUCKETS),
    }


def describe_model(model: Model, store: Store, deployed: Iterable[Endpoint]) -> Shown:
    sizes = [file.stat().st_size for prefix in model.artifacts for _, file in store.files(prefix)]
    return {
        "name": model.name,
        "version": str(model.version),
        "created": model.created,
        "description": model.description,
        "tags": model.tags,
        "properties": model.properties,
        "archived": model.archived,
        "size": sum(sizes),
        "files": len(sizes),
        "run": find_run_id(model),
        "used_by": list_model_users(model, deployed, store),
    }


def describe_environment(environment: Environment, deployed: Iterable[Endpoint]) -> Shown:
    return {
        "name": environment.name,
        "version": environment.version,
        "created": environment.created,
        "description": environment.description,
        "tags": environment.tags,
        "variables": environment.variables,
        "archived": environment.archived,
        "image": environment.image,
        "conda": definition(environment),
        "used_by": list_users(deployed, lambda spec: spec.environment == environment.id),
    }
