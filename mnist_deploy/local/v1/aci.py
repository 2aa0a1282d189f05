"""Services on Azure Container Instances: one container, which requires a key only on request."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import structs, to_builtins

from ..bodies import Document
from ..core.endpoints import Endpoint, EndpointSpec
from ..core.faults import NotSupported
from .configuration import (
    DataCollection,
    ServiceRequest,
    check_service_name,
    make_deployment_spec,
    make_endpoint_spec,
    resolve_resources,
)

MAX_CORES, MAX_MEMORY_GB = 4, 16  # cores and GB: the limits of a container instance


def make_aci_spec(
    requested: ServiceRequest, present: EndpointSpec | None, keep: bool
) -> EndpointSpec:
    """The spec of the requested service; with `keep`, containers with an equal spec are kept."""
    check_service_name(requested.name)
    collection = requested.data_collection or DataCollection()
    reject_options(
        ssl_enabled=requested.ssl_enabled,
        vnet_name=requested.vnet_configuration,
        cmk_vault_base_url=requested.encryption_properties,
        collect_model_data=collection.storage_enabled or collection.event_hub_enabled,
    )
    resources = resolve_resources(requested, MAX_CORES, MAX_MEMORY_GB)
    requested = structs.replace(requested, container_resource_requirements=resources)
    before = present.deployments.get(requested.name) if present else None
    return make_endpoint_spec(
        requested,
        {
            requested.name: make_deployment_spec(
                requested, tuple(list_aci_warnings(requested)), 1, before, keep
            )
        },
        {requested.name: 100},
        "key" if requested.auth_enabled else "none",
        present,
    )


def reject_options(**options: object) -> None:
    """Raise `NotSupported` for options that are set; a warning could be overlooked."""
    for name, value in options.items():
        if value:
            raise NotSupported(f"a web service with {name}")


def list_aci_warnings(requested: ServiceRequest) -> Iterator[str]:
    if requested.location:
        yield f"location: the service runs on this machine, not in {requested.location}"
    if requested.dns_name_label:
        yield (
            f"dns_name_label: no DNS name {requested.dns_name_label} is created; scoring_uri is an "
            "address on 127.0.0.1"
        )


def serialize_aci_service(service: Endpoint) -> Document:
    """The fields that only services on ACI have."""
    requested: ServiceRequest = service.spec.other
    resources = to_builtins(requested.container_resource_requirements)
    return {
        "computeType": "ACI",
        "authEnabled": service.spec.authentication == "key",
        "containerResourceRequirements": {name: resources[name] for name in ("cpu", "memoryInGB")},
        "location": "local",
        "publicIp": "127.0.0.1",
        "publicFqdn": "127.0.0.1",
        "cname": "",
        "sslEnabled": False,
        "sslCertificate": "",
        "sslKey": "",
    }
