"""Requests for web services, with the deployment configurations of ACI and AKS, and their specs."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Annotated, Any

from msgspec import Meta, Struct, field, structs, to_builtins

from ..bodies import Document, Labels, convert, texts
from ..core.container_spec import ContainerSpec
from ..core.deployments import DeploymentSpec
from ..core.endpoints import EndpointSpec, new_key
from ..core.faults import Invalid
from ..platforms import AKS_PROBE, ProbeSettings, RequestSettings
from . import no_code
from .container_specs import find_container_spec
from .models import PatchOperation

NAME = re.compile(r"[a-z]([-a-z0-9]{0,30}[a-z0-9])?")
KEY = re.compile("[!-~]+")
# A request has exactly one of these fields.
CONTAINER_SPECS = ("environmentImageRequest", "imageId")

Positive = Annotated[int, Meta(gt=0)]


class ServiceResources(Struct):
    cpu: float | None = None
    cpu_limit: float | None = field(default=None, name="cpuLimit")
    memory: float | None = field(default=None, name="memoryInGB")
    memory_limit: float | None = field(default=None, name="memoryInGBLimit")
    gpu: int | None = None


class AutoScaler(Struct, rename="camel"):
    autoscale_enabled: bool | None = None
    min_replicas: Positive | None = None
    max_replicas: Positive | None = None
    target_utilization: Positive | None = None
    refresh_period_in_seconds: Positive | None = None


class ServiceKeys(Struct, rename="camel"):
    primary_key: str | None = None
    secondary_key: str | None = None


class DataCollection(Struct, rename="camel"):
    storage_enabled: bool | None = None
    event_hub_enabled: bool | None = None


class ServiceRequest(Struct, rename="camel", kw_only=True):
    """A requested service, or a requested version of an AKS endpoint.

    The request is stored: a GET returns its fields, and a PATCH changes them.
    """

    name: str
    compute_type: str | None = None
    compute_name: str | None = None
    description: str | None = None
    kv_tags: Labels | None = None
    properties: Labels | None = None
    overwrite: bool | None = None

    # Environment, script and models.
    image_id: str | None = None
    environment_image_request: dict[str, Any] | None = None
    container_resource_requirements: ServiceResources | None = None
    app_insights_enabled: bool | None = None
    data_collection: DataCollection | None = None
    scoring_timeout_ms: Positive | None = None
    max_concurrent_requests_per_container: Positive | None = None
    max_queue_wait_ms: Positive | None = None

    # Address and authentication.
    auth_enabled: bool | None = None
    aad_auth_enabled: bool | None = None
    keys: ServiceKeys | None = None
    location: str | None = None
    dns_name_label: str | None = None
    ssl_enabled: bool | None = None
    vnet_configuration: dict[str, Any] | None = None
    encryption_properties: dict[str, Any] | None = None
    namespace: str | None = None
    storage_init_enabled: bool | None = None

    # Replicas.
    num_replicas: Positive | None = None
    auto_scaler: AutoScaler | None = None
    liveness_probe_requirements: dict[str, int | None] | None = None

    # As a version of an endpoint; as an endpoint, the versions.
    traffic_percentile: Annotated[float, Meta(ge=0, le=100)] | None = None
    is_default: bool | None = None
    type: str | None = None
    versions: dict[str, ServiceRequest] | None = None


def check_service_name(name: str) -> None:
    if not NAME.fullmatch(name):
        raise Invalid(
            "service name",
            f"{name!r} is not a valid name of a service. Expected at most 32 lower-case letters, "
            "digits and '-', beginning with a letter.",
        )


def check_key(key: str | None) -> None:
    if key and not KEY.fullmatch(key):
        raise Invalid("key", "Expected a key of printable ASCII characters without spaces.")


def resolve_resources(
    requested: ServiceRequest, max_cores: float, max_memory_gb: float
) -> ServiceResources:
    """The requested resources, or Azure's defaults.

    Raises
    ------
    Invalid
        If the request exceeds the limits of the platform.
    """
    resources = structs.replace(requested.container_resource_requirements or ServiceResources())
    of_model = no_code.resources(requested.environment_image_request or {})
    registered = convert(of_model, ServiceResources)
    resources.cpu = next(cpu for cpu in (resources.cpu, registered.cpu, 0.1) if cpu is not None)
    resources.memory = next(
        gb for gb in (resources.memory, registered.memory, 0.5) if gb is not None
    )
    for name, value, limit in (
        ("cpu_cores", resources.cpu, max_cores),
        ("cpu_cores_limit", resources.cpu_limit, max_cores),
        ("memory_gb", resources.memory, max_memory_gb),
        ("memory_gb_limit", resources.memory_limit, max_memory_gb),
    ):
        if value is not None and not 0 < value <= limit:
            raise Invalid(
                "resources",
                f"{name} is {value:g}: expected more than 0 and at most {limit:g} for a container.",
            )
    return resources


def build_container_spec(requested: ServiceRequest, warnings: tuple[str, ...]) -> ContainerSpec:
    container_spec = find_container_spec(requested.image_id, requested.environment_image_request)
    resources = requested.container_resource_requirements or ServiceResources()
    timeout = requested.scoring_timeout_ms
    return replace(
        container_spec,
        cpu_cores=resources.cpu_limit or resources.cpu or 0,
        memory_gb=resources.memory_limit or resources.memory or 0,
        variables=container_spec.variables
        | ({"SCORING_TIMEOUT_MS": str(timeout)} if timeout else {}),
        insights=bool(requested.app_insights_enabled),
        liveness=make_liveness_probe(requested),
        warnings=(*warnings, *container_spec.warnings),
    )


def make_request_settings(requested: ServiceRequest) -> RequestSettings:
    """The request limits of a service on AKS; ACI has no front end that could limit requests."""

    def seconds(milliseconds: int | None) -> float | None:
        return milliseconds and milliseconds / 1000

    return RequestSettings(
        seconds(requested.scoring_timeout_ms),
        requested.max_concurrent_requests_per_container,
        seconds(requested.max_queue_wait_ms),
    )


def make_liveness_probe(requested: ServiceRequest) -> ProbeSettings | None:
    """The requested probe; fields that are not set get the defaults of AKS."""
    given = requested.liveness_probe_requirements or {}
    names = {"periodSeconds": "period", "initialDelaySeconds": "initial_delay",
             "timeoutSeconds": "timeout", "failureThreshold": "failure_threshold",
             "successThreshold": "success_threshold"}  # fmt: skip
    own = {names[name]: value for name, value in given.items() if name in names and value}
    return replace(AKS_PROBE, **own) if own else None


def make_deployment_spec(
    requested: ServiceRequest,
    warnings: tuple[str, ...],
    replicas: int,
    present: DeploymentSpec | None,
    keep: bool,
) -> DeploymentSpec:
    """The spec of the requested deployment.

    With `keep`, the containers of `present` are kept if their spec is equal.
    """
    container_spec = build_container_spec(requested, warnings)
    if present is not None:
        generation = present.container_spec.generation + (not keep)
        container_spec = replace(container_spec, generation=generation)
    return DeploymentSpec(
        container_spec,
        replicas,
        make_request_settings(requested),
        requested.description or "",
        texts(requested.kv_tags),
        texts(requested.properties),
        other=requested,
    )


def make_endpoint_spec(
    requested: ServiceRequest,
    deployments: dict[str, DeploymentSpec],
    traffic: dict[str, int],
    authentication: str,
    present: EndpointSpec | None,
) -> EndpointSpec:
    """The requested endpoint; an overwritten or updated endpoint keeps its keys."""
    given = requested.keys or ServiceKeys()
    primary, secondary = given.primary_key, given.secondary_key
    for key in (primary, secondary):
        check_key(key)
    return EndpointSpec(
        deployments,
        traffic,
        authentication=authentication,
        primary_key=primary or (present.primary_key if present else new_key()),
        secondary_key=secondary or (present.secondary_key if present else new_key()),
        description=requested.description or "",
        tags=texts(requested.kv_tags),
        properties=texts(requested.properties),
        compute=requested.compute_name or "",
        other=structs.replace(requested, keys=None),
    )


def apply_service_patch(present: ServiceRequest, changes: list[PatchOperation]) -> ServiceRequest:
    """A service after the operations of a JSON patch.

    Raises
    ------
    Invalid
        If a path or an operation is not valid, or the result is not a valid request.
    """
    document: Document = to_builtins(present)
    for change in changes:
        apply_patch_operation(document, change)
    after = convert(document, ServiceRequest)
    if (after.name, after.compute_type) != (present.name, present.compute_type):
        raise Invalid(
            "patch", "name and computeType of a service cannot be changed: deploy another service."
        )
    check_properties(texts(present.properties), texts(after.properties))
    return after


def apply_patch_operation(document: Document, change: PatchOperation) -> None:
    """Change the field that an operation names, and the fields that exclude the new value."""
    *parents, name = change.path.strip("/").split("/")
    name = "kvTags" if name == "tags" else name  # the SDK's name for the tags of a version
    for parent in parents:
        if document.get(parent) is None:
            document[parent] = {}
        document = document[parent]
        if not isinstance(document, dict):
            raise Invalid("patch", f"{change.path} is not the path of a service's field.")
    match change.op.lower():
        case "add" | "replace":
            document[name] = change.value
        case "remove" if name in document:
            del document[name]
        case _:
            raise Invalid(
                "patch",
                f"{change.op} {change.path} is not possible: expected add, replace, or remove of "
                "a field that is set.",
            )
    if name in CONTAINER_SPECS:
        document |= {other: None for other in CONTAINER_SPECS if other != name}
    if name == "numReplicas":
        document["autoScaler"] = {**(document.get("autoScaler") or {}), "autoscaleEnabled": False}


def check_properties(present: dict[str, str], requested: dict[str, str]) -> None:
    """Reject changes of properties: as on Azure, properties can only be added."""
    for name, value in present.items():
        if requested.get(name) != value:
            raise Invalid(
                "property",
                f"{name} is {value!r}: properties of a service can be added, but not changed. "
                "Use a tag for a value that changes.",
            )
