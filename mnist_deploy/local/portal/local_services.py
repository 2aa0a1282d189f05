"""Converts local services (``local=True``, ``LocalWebservice``) for the page's endpoint list."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..core.endpoints import EndpointSpec
from ..core.faults import NotFound
from ..core.telemetry import BUCKETS, summary_of

if TYPE_CHECKING:
    from ..core.local_containers import LocalContainer, LocalContainers

KIND = "local"


@dataclass(eq=False)
class LocalService:
    """The fields of an `Endpoint` that the page reads, with one deployment and no key."""

    name: str
    container: LocalContainer
    kind: str = KIND
    spec: EndpointSpec = field(default_factory=EndpointSpec)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.container.port}" if self.container.port else ""

    @property
    def deployments(self) -> dict[str, LocalContainer]:
        return {self.name: self.container}


def list_local_services(containers: LocalContainers | None) -> list[LocalService]:
    """List the local services.

    SDK v1 labels a container with the name of its service; SDK v2 names it ENDPOINT.DEPLOYMENT.
    """
    found = containers.all() if containers else []
    return [LocalService(each.spec.labels.get("containerName", each.name), each) for each in found]


def find_local_service(containers: LocalContainers | None, name: str) -> LocalService:
    """Return the local service with a name.

    Raises
    ------
    NotFound
        If no local service has the name.
    """
    for service in list_local_services(containers):
        if service.name == name:
            return service
    raise NotFound("local service", name)


def serialize_local_service(service: LocalService) -> dict[str, Any]:
    container = service.container
    usage = summary_of(container.requests, BUCKETS)
    failed = (
        "The script could not be imported, or init() raised: see the log."
        if container.exit_code
        else ""
    )
    common = {"name": service.name, "state": container.state, "created": container.created}
    deployment = {
        "error": failed,
        "notes": container.image.content.warnings,
        "traffic": 100,
        "mirror": 0,
        "models": [],
        "replicas": 1,
        "cpu": container.cpu_cores,
        "memory": round(container.memory_gb),
        "updated": container.created,
        "usage": usage,
    }
    return {
        **common,
        "kind": KIND,
        "uri": f"{service.url}/score" if service.url else "",
        "authentication": "none",
        "description": f"A local service with the image {container.spec.image}",
        "tags": {},
        "properties": {},
        "usage": usage,
        "traces": [],
        "deployments": [common | deployment],
    }
