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
from .aci import refuse_untrue
from .configuration import (
    AutoScaler,
    DataCollection,
    Resources,
    Service,
    check_name,
    deployment,
    endpoint,
    resources_of,
)

MOST_REPLICAS = 16
MOST_CORES, MOST_MEMORY = 64, 1024  # cores and GB
SCORING_TIMEOUT = 60_000  # milliseconds, unless another is asked for
AUTOSCALER = AutoScaler(True, 1, 10, 70, 1)  # what Azure takes where nothing is asked for
PROBE = {"periodSeconds": 10, "initialDelaySeconds": 310, "timeoutSeconds": 1,
         "failureThreshold": 3, "successThreshold": 1}  # fmt: skip


def specify(asked: Service, present: EndpointSpec | None, keep: bool) -> EndpointSpec:
    """What is wanted; `keep` the containers of `present` where they are as wanted."""
    asked = checked(asked)
    before = present.deployments.get(asked.name) if present else None
    return endpoint(
        asked,
        {asked.name: deployment(asked, tuple(notes(asked)), replicas(asked), before, keep)},
        {asked.name: 100},
        authentication(asked),
        present,
    )


def specify_endpoint(asked: Service, present: EndpointSpec | None, keep: bool) -> EndpointSpec:
    """As `specify`, of an endpoint with versions."""
    check_name(asked.name)
    versions = with_a_default(asked.versions or {})
    shared = {"compute_name": cluster_of(asked), "namespace": asked.namespace,
              "app_insights_enabled": asked.app_insights_enabled}  # fmt: skip
    versions = {
        name: checked(structs.replace(version, name=name, **shared))
        for name, version in versions.items()
    }
    asked = structs.replace(asked, versions=versions, compute_name=shared["compute_name"])
    before = present.deployments if present else {}
    deployments = {
        name: deployment(version, tuple(notes(version)), replicas(version), before.get(name), keep)
        for name, version in versions.items()
    }
    return endpoint(asked, deployments, traffic(versions), authentication(asked), present)


def cluster_of(asked: Service) -> str:
    """The cluster that is asked for; an endpoint may say it in its versions only."""
    named = [asked.compute_name, *(each.compute_name for each in (asked.versions or {}).values())]
    for name in filter(None, named):
        return name
    raise Invalid(
        "deployment target",
        "An AKS service needs a cluster: pass deployment_target=AksCompute(ws, name).",
    )


def with_a_default(versions: dict[str, Service]) -> dict[str, Service]:
    """Exactly one version is the default: the one that gets what is left of the traffic."""
    if not versions:
        raise Conflict("version", "An endpoint needs a version: delete the endpoint instead.")
    defaults = [name for name, version in versions.items() if version.is_default]
    if len(defaults) > 1:
        raise Invalid("versions", f"Only one version can be the default, not {defaults}.")
    default = defaults[0] if defaults else next(iter(versions))
    if not defaults and any(version.is_default is False for version in versions.values()):
        raise Conflict(
            "version", "Make another version the default before you delete the one that is."
        )
    return {
        name: structs.replace(
            version,
            is_default=name == default,
            type=version.type or ("Control" if name == default else "Treatment"),
        )
        for name, version in versions.items()
    }


def traffic(versions: dict[str, Service]) -> dict[str, int]:
    """The shares in percent: as asked for, and what is left goes to the default version."""
    shares = {
        name: round(version.traffic_percentile or 0)
        for name, version in versions.items()
        if not version.is_default
    }
    left = 100 - sum(shares.values())
    if left < 0:
        raise Invalid("traffic", f"The shares of the versions add up to {100 - left} percent.")
    return {
        name: left if version.is_default else shares[name] for name, version in versions.items()
    }


def checked(asked: Service) -> Service:
    """`asked` with what Azure takes where nothing is asked for."""
    check_name(asked.name)
    cluster = cluster_of(asked)
    if store().get(Compute, cluster).kind != "AKS":
        raise Invalid("deployment target", f"{cluster} is no AKS cluster.")
    collection = asked.data_collection or DataCollection()
    resources = resources_of(asked, MOST_CORES, MOST_MEMORY)
    refuse_untrue(
        collect_model_data=collection.storage_enabled or collection.event_hub_enabled,
        gpu_cores=resources.gpu,
    )
    if asked.auth_enabled and asked.aad_auth_enabled:
        raise Invalid("authentication", "A service asks for keys or for tokens, not for both.")
    return structs.replace(
        asked,
        compute_name=cluster,
        container_resource_requirements=resources,
        auto_scaler=autoscaler(asked),
        scoring_timeout_ms=asked.scoring_timeout_ms or SCORING_TIMEOUT,
    )


def autoscaler(asked: Service) -> AutoScaler:
    given = asked.auto_scaler or AutoScaler()
    on = given.autoscale_enabled
    return AutoScaler(
        asked.num_replicas is None if on is None else on,
        given.min_replicas or AUTOSCALER.min_replicas,
        given.max_replicas or AUTOSCALER.max_replicas,
        given.target_utilization or AUTOSCALER.target_utilization,
        given.refresh_period_in_seconds or AUTOSCALER.refresh_period_in_seconds,
    )


def replicas(asked: Service) -> int:
    scaler = asked.auto_scaler or AUTOSCALER
    wanted = (scaler.min_replicas if scaler.autoscale_enabled else asked.num_replicas) or 1
    if wanted > MOST_REPLICAS:
        raise Invalid("replicas", f"num_replicas is at most {MOST_REPLICAS} here, not {wanted}.")
    return wanted


def authentication(asked: Service) -> str:
    """Keys, unless tokens or neither are asked for."""
    if asked.aad_auth_enabled:
        return "token"
    return "none" if asked.auth_enabled is False else "key"


def notes(asked: Service) -> Iterator[str]:
    cluster = store().get(Compute, asked.compute_name or "")
    yield f"cluster: {cluster.name} is a name here: its replicas are processes of this machine"
    if cluster.settings.get("sslConfiguration", {}).get("status") not in (None, "Disabled"):
        yield f"ssl: {cluster.name} has it enabled, but the service stays on plain http here"
    if asked.auto_scaler and asked.auto_scaler.autoscale_enabled:
        yield (
            f"autoscale: nothing scales by itself here: {replicas(asked)} replicas run, "
            "autoscale_min_replicas; update(num_replicas=...) changes that"
        )
    if asked.namespace:
        yield f"namespace: there is no {asked.namespace} here"


def describe(service: Endpoint) -> Document:
    """What only a service on AKS has to tell."""
    version = service.spec.other
    return {
        "computeType": "AKS",
        **describe_authentication(service),
        **describe_containers(version, service.deployments[service.name]),
    }


def describe_endpoint(service: Endpoint) -> Document:
    return {
        "computeType": "AKSENDPOINT",
        "computeName": service.spec.compute,
        "appInsightsEnabled": bool(service.spec.other.app_insights_enabled),
        **describe_authentication(service),
    }


def describe_version(service: Endpoint, name: str) -> Document:
    version: Service = service.spec.deployments[name].other
    return {
        "computeType": "AKS",
        "isDefault": version.is_default,
        "trafficPercentile": service.spec.traffic[name],
        "type": version.type,
        **describe_authentication(service),
        **describe_containers(version, service.deployments[name]),
    }


def describe_authentication(service: Endpoint) -> Document:
    return {
        "authEnabled": service.spec.authentication == "key",
        "aadAuthEnabled": service.spec.authentication == "token",
    }


def describe_containers(asked: Service, running: Deployment) -> Document:
    size = asked.container_resource_requirements or Resources()
    available = sum(each.state == "Healthy" for each in list(running.containers))
    return {
        "computeName": asked.compute_name,
        "namespace": asked.namespace or "default",
        "numReplicas": running.spec.replicas,
        "autoScaler": to_builtins(asked.auto_scaler),
        "containerResourceRequirements": {
            "cpu": size.cpu,
            "cpuLimit": size.cpu_limit or size.cpu,
            "memoryInGB": size.memory,
            "memoryInGBLimit": size.memory_limit or size.memory,
            "gpu": 0,
        },
        "dataCollection": {"storageEnabled": False, "eventHubEnabled": False},
        "livenessProbeRequirements": PROBE
        | {name: n for name, n in (asked.liveness_probe_requirements or {}).items() if n},
        "maxConcurrentRequestsPerContainer": asked.max_concurrent_requests_per_container or 1,
        "maxQueueWaitMs": asked.max_queue_wait_ms or 500,
        "scoringTimeoutMs": asked.scoring_timeout_ms,
        "deploymentStatus": {
            "desiredReplicas": running.spec.replicas,
            "updatedReplicas": len(running.containers),
            "availableReplicas": available,
        },
    }
