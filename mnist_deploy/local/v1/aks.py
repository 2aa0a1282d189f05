"""Services on a Kubernetes cluster: replicas, keys or tokens, versions that share the traffic."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import structs, to_builtins

from ..bodies import Document
from ..core.deployments import Deployment
from ..core.endpoints import Endpoint, EndpointSpec
from ..core.faults import Conflict, Invalid
from ..core.records import Compute
from ..rest import store
from .aci import reject_options
from .configuration import (
    AutoScaler,
    DataCollection,
    ServiceRequest,
    ServiceResources,
    check_service_name,
    make_deployment_spec,
    make_endpoint_spec,
    resolve_resources,
)

MAX_REPLICAS = 16
MAX_CORES, MAX_MEMORY_GB = 64, 1024  # cores and GB
SCORING_TIMEOUT = 60_000  # milliseconds, unless another is requested
AUTOSCALER = AutoScaler(True, 1, 10, 70, 1)  # Azure's default
PROBE = {"periodSeconds": 10, "initialDelaySeconds": 310, "timeoutSeconds": 1,
         "failureThreshold": 3, "successThreshold": 1}  # fmt: skip


def make_aks_spec(
    requested: ServiceRequest, present: EndpointSpec | None, keep: bool
) -> EndpointSpec:
    """The spec of the requested service; with `keep`, containers with an equal spec are kept."""
    requested = apply_aks_defaults(requested)
    before = present.deployments.get(requested.name) if present else None
    return make_endpoint_spec(
        requested,
        {
            requested.name: make_deployment_spec(
                requested,
                tuple(list_aks_warnings(requested)),
                count_replicas(requested),
                before,
                keep,
            )
        },
        {requested.name: 100},
        choose_authentication(requested),
        present,
    )


def make_aks_endpoint_spec(
    requested: ServiceRequest, present: EndpointSpec | None, keep: bool
) -> EndpointSpec:
    """The spec of the requested endpoint with its versions; `keep` as for `make_aks_spec`."""
    check_service_name(requested.name)
    versions = set_default_version(requested.versions or {})
    shared = {"compute_name": find_cluster_name(requested), "namespace": requested.namespace,
              "app_insights_enabled": requested.app_insights_enabled}  # fmt: skip
    versions = {
        name: apply_aks_defaults(structs.replace(version, name=name, **shared))
        for name, version in versions.items()
    }
    requested = structs.replace(requested, versions=versions, compute_name=shared["compute_name"])
    before = present.deployments if present else {}
    deployments = {
        name: make_deployment_spec(
            version,
            tuple(list_aks_warnings(version)),
            count_replicas(version),
            before.get(name),
            keep,
        )
        for name, version in versions.items()
    }
    return make_endpoint_spec(
        requested, deployments, compute_traffic(versions), choose_authentication(requested), present
    )


def find_cluster_name(requested: ServiceRequest) -> str:
    """The requested cluster; an endpoint may name the cluster in its versions only."""
    named = [
        requested.compute_name,
        *(each.compute_name for each in (requested.versions or {}).values()),
    ]
    for name in filter(None, named):
        return name
    raise Invalid(
        "deployment target",
        "An AKS service needs a cluster: pass deployment_target=AksCompute(ws, name).",
    )


def set_default_version(versions: dict[str, ServiceRequest]) -> dict[str, ServiceRequest]:
    """Make exactly one version the default, which gets the remaining traffic."""
    if not versions:
        raise Conflict("version", "An endpoint needs a version: delete the endpoint instead.")
    defaults = [name for name, version in versions.items() if version.is_default]
    if len(defaults) > 1:
        raise Invalid("versions", f"Only one version can be the default, not {defaults}.")
    default = defaults[0] if defaults else next(iter(versions))
    if not defaults and any(version.is_default is False for version in versions.values()):
        raise Conflict(
            "version", "Make another version the default before you delete the default version."
        )
    return {
        name: structs.replace(
            version,
            is_default=name == default,
            type=version.type or ("Control" if name == default else "Treatment"),
        )
        for name, version in versions.items()
    }


def compute_traffic(versions: dict[str, ServiceRequest]) -> dict[str, int]:
    """The requested shares in percent; the default version gets the rest."""
    shares = {
        name: round(version.traffic_percentile or 0)
        for name, version in versions.items()
        if not version.is_default
    }
    left = 100 - sum(shares.values())
    if left < 0:
        raise Invalid(
            "traffic",
            f"The shares of the versions add up to {100 - left} percent: at most 100 is expected.",
        )
    return {
        name: left if version.is_default else shares[name] for name, version in versions.items()
    }


def apply_aks_defaults(requested: ServiceRequest) -> ServiceRequest:
    """`requested`, with Azure's defaults for the fields that are not set."""
    check_service_name(requested.name)
    cluster = find_cluster_name(requested)
    if store().get(Compute, cluster).kind != "AKS":
        raise Invalid(
            "deployment target",
            f"{cluster} is not an AKS cluster: expected the name of an AKS cluster.",
        )
    collection = requested.data_collection or DataCollection()
    resources = resolve_resources(requested, MAX_CORES, MAX_MEMORY_GB)
    reject_options(
        collect_model_data=collection.storage_enabled or collection.event_hub_enabled,
        gpu_cores=resources.gpu,
    )
    if requested.auth_enabled and requested.aad_auth_enabled:
        raise Invalid(
            "authentication",
            "auth_enabled and token_auth_enabled are both set: expected one of them.",
        )
    return structs.replace(
        requested,
        compute_name=cluster,
        container_resource_requirements=resources,
        auto_scaler=make_autoscaler(requested),
        scoring_timeout_ms=requested.scoring_timeout_ms or SCORING_TIMEOUT,
    )


def make_autoscaler(requested: ServiceRequest) -> AutoScaler:
    scaler = requested.auto_scaler or AutoScaler()
    is_enabled = scaler.autoscale_enabled
    return AutoScaler(
        requested.num_replicas is None if is_enabled is None else is_enabled,
        scaler.min_replicas or AUTOSCALER.min_replicas,
        scaler.max_replicas or AUTOSCALER.max_replicas,
        scaler.target_utilization or AUTOSCALER.target_utilization,
        scaler.refresh_period_in_seconds or AUTOSCALER.refresh_period_in_seconds,
    )


def count_replicas(requested: ServiceRequest) -> int:
    scaler = requested.auto_scaler or AUTOSCALER
    count = (scaler.min_replicas if scaler.autoscale_enabled else requested.num_replicas) or 1
    if count > MAX_REPLICAS:
        raise Invalid("replicas", f"num_replicas is {count}: expected at most {MAX_REPLICAS} here.")
    return count


def choose_authentication(requested: ServiceRequest) -> str:
    """``key``, ``token`` or ``none``; a service on AKS requires keys by default."""
    if requested.aad_auth_enabled:
        return "token"
    return "none" if requested.auth_enabled is False else "key"


def list_aks_warnings(requested: ServiceRequest) -> Iterator[str]:
    cluster = store().get(Compute, requested.compute_name or "")
    yield f"cluster: {cluster.name} has no machines; replicas are processes of this machine"
    if cluster.settings.get("sslConfiguration", {}).get("status") not in (None, "Disabled"):
        yield f"ssl: it is enabled for {cluster.name}, but the service uses plain http here"
    if requested.auto_scaler and requested.auto_scaler.autoscale_enabled:
        yield (
            "autoscale: there is no autoscaler here: the service keeps its "
            f"{count_replicas(requested)} replicas (autoscale_min_replicas) until "
            "update(num_replicas=...)"
        )
    if requested.storage_init_enabled is False:
        yield "blobfuse_enabled: models are copied into the container, not mounted"
    if requested.namespace:
        yield f"namespace: no namespace {requested.namespace} is created"


def serialize_aks_service(service: Endpoint) -> Document:
    """The fields that only services on AKS have."""
    version = service.spec.other
    return {
        "computeType": "AKS",
        **serialize_authentication(service),
        **serialize_aks_containers(version, service.deployments[service.name]),
    }


def serialize_aks_endpoint(service: Endpoint) -> Document:
    return {
        "computeType": "AKSENDPOINT",
        "computeName": service.spec.compute,
        "appInsightsEnabled": bool(service.spec.other.app_insights_enabled),
        **serialize_authentication(service),
    }


def serialize_aks_version(service: Endpoint, name: str) -> Document:
    version: ServiceRequest = service.spec.deployments[name].other
    return {
        "computeType": "AKS",
        "isDefault": version.is_default,
        "trafficPercentile": service.spec.traffic[name],
        "type": version.type,
        **serialize_authentication(service),
        **serialize_aks_containers(version, service.deployments[name]),
    }


def serialize_authentication(service: Endpoint) -> Document:
    return {
        "authEnabled": service.spec.authentication == "key",
        "aadAuthEnabled": service.spec.authentication == "token",
    }


def serialize_aks_containers(requested: ServiceRequest, running: Deployment) -> Document:
    size = requested.container_resource_requirements or ServiceResources()
    available = sum(each.state == "Healthy" for each in list(running.containers))
    return {
        "computeName": requested.compute_name,
        "namespace": requested.namespace or "default",
        "numReplicas": running.spec.replicas,
        "autoScaler": to_builtins(requested.auto_scaler),
        "containerResourceRequirements": {
            "cpu": size.cpu,
            "cpuLimit": size.cpu_limit or size.cpu,
            "memoryInGB": size.memory,
            "memoryInGBLimit": size.memory_limit or size.memory,
            "gpu": 0,
        },
        "dataCollection": {"storageEnabled": False, "eventHubEnabled": False},
        "livenessProbeRequirements": PROBE
        | {name: n for name, n in (requested.liveness_probe_requirements or {}).items() if n},
        "maxConcurrentRequestsPerContainer": requested.max_concurrent_requests_per_container or 1,
        "maxQueueWaitMs": requested.max_queue_wait_ms or 500,
        "scoringTimeoutMs": requested.scoring_timeout_ms,
        "deploymentStatus": {
            "desiredReplicas": running.spec.replicas,
            "updatedReplicas": len(running.containers),
            "availableReplicas": available,
        },
    }
