"""The body of ``OnlineDeployments_CreateOrUpdate``: its types, and the ranges that Azure allows."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from .. import platforms
from ..bodies import Labels
from ..core.faults import Invalid
from ..validation import check_choice, check_variables

MAX_REQUEST_TIMEOUT = timedelta(minutes=3)
SECOND = timedelta(seconds=1)

Instances = Annotated[int, Meta(ge=1, le=50)]
Positive = Annotated[int, Meta(ge=1)]


class CodeConfiguration(Struct, rename="camel"):
    scoring_script: str
    code_id: str


class OnlineRequestSettings(Struct, rename="camel"):
    max_concurrent_requests_per_instance: Annotated[int, Meta(ge=1, le=1000)] | None = None
    max_queue_wait: timedelta | None = None
    request_timeout: timedelta | None = None

    def check(self) -> None:
        check_duration("request_timeout_ms", self.request_timeout)
        check_duration("max_queue_wait_ms", self.max_queue_wait)


class ProbeRequest(Struct, rename="camel"):
    initial_delay: timedelta | None = None
    period: timedelta | None = None
    timeout: timedelta | None = None
    success_threshold: Positive | None = None
    failure_threshold: Positive | None = None


class OnlineScaleSettings(Struct, rename="camel"):
    scale_type: Literal["Default", "TargetUtilization"] = "Default"
    min_instances: Instances | None = None
    max_instances: Instances | None = None
    target_utilization_percentage: Annotated[int, Meta(ge=1, le=100)] | None = None
    polling_interval: timedelta | None = None

    def check(self, compute_type: str) -> None:
        if compute_type == "Managed" and self.scale_type != "Default":
            raise Invalid(
                "deployment",
                f"scale_settings.type is {self.scale_type}, but Default is expected: managed "
                "endpoints support no other type.",
            )
        low, high = self.min_instances or 1, self.max_instances or 1
        if low > high:
            raise Invalid(
                "deployment",
                f"scale_settings: min_instances is {low}, but at most max_instances, {high}, "
                "is expected.",
            )


class ContainerResources(Struct, rename="camel"):
    container_resource_limits: dict[str, str | None] | None = None
    container_resource_requests: dict[str, str | None] | None = None


class DeploymentProperties(Struct, rename="camel", kw_only=True):
    endpoint_compute_type: Literal["Managed", "Kubernetes"]
    code_configuration: CodeConfiguration | None = None
    environment_id: str | None = None
    model: str | None = None
    model_mount_path: str | None = None
    environment_variables: dict[str, Any] | None = None
    instance_type: str | None = None
    container_resource_requirements: ContainerResources | None = None
    request_settings: OnlineRequestSettings | None = None
    scale_settings: OnlineScaleSettings | None = None
    liveness_probe: ProbeRequest | None = None
    readiness_probe: ProbeRequest | None = None
    startup_probe: ProbeRequest | None = None
    app_insights_enabled: bool | None = None
    data_collector: dict[str, Any] | None = None
    egress_public_network_access: str | None = None
    private_network_connection: bool | None = None
    description: str | None = None
    properties: Labels | None = None

    @property
    def limits(self) -> platforms.RequestSettings:
        """The request limits that the deployment sets."""
        requested = self.request_settings or OnlineRequestSettings()
        return platforms.RequestSettings(
            to_seconds(requested.request_timeout),
            requested.max_concurrent_requests_per_instance,
            to_seconds(requested.max_queue_wait),
        )

    @property
    def requires_private_network(self) -> bool:
        """Whether a private network is requested; SDK v2 sends this option as a property."""
        requested = (self.properties or {}).get("private-network-connection")
        return bool(self.private_network_connection) or str(requested).lower() == "true"

    def check(self) -> None:
        """Reject values that Azure does not accept.

        Raises
        ------
        Invalid
            With the option, its value, and the values that are accepted.
        """
        if self.request_settings is not None:
            self.request_settings.check()
        if self.scale_settings is not None:
            self.scale_settings.check(self.endpoint_compute_type)
        self.egress_public_network_access = check_choice(
            "egress_public_network_access",
            self.egress_public_network_access,
            ("Enabled", "Disabled"),
        )
        check_variables(self.environment_variables or {})


class Sku(Struct):
    capacity: Instances | None = None


class DeploymentRequest(Struct):
    properties: DeploymentProperties
    sku: Sku | None = None
    tags: Labels | None = None

    @property
    def instance_count(self) -> int:
        """The number of instances; the minimum, if the deployment has scale settings."""
        scale = self.properties.scale_settings
        if scale is not None and scale.scale_type == "TargetUtilization":
            return scale.min_instances or 1
        return (self.sku and self.sku.capacity) or 1


def to_seconds(duration: timedelta | None) -> float | None:
    return None if duration is None else duration / SECOND


def check_duration(option: str, duration: timedelta | None) -> None:
    if duration is not None and not timedelta(0) < duration <= MAX_REQUEST_TIMEOUT:
        milliseconds = timedelta(milliseconds=1)
        raise Invalid(
            "deployment",
            f"{option} is {duration / milliseconds:g}, but 1 to "
            f"{MAX_REQUEST_TIMEOUT / milliseconds:g} is expected.",
        )


def make_probe(option: str, requested: ProbeRequest | None) -> platforms.ProbeSettings | None:
    """The requested probe with Azure's defaults; None if no probe is requested.

    Raises
    ------
    Invalid
        If a duration is shorter than one second, Azure's minimum.
    """
    if requested is None:
        return None
    values: dict[str, Any] = {}
    for name in requested.__struct_fields__:
        value: timedelta | int | None = getattr(requested, name)
        if isinstance(value, timedelta):
            if value < SECOND:
                raise Invalid(
                    "deployment",
                    f"{option}.{name} is {value / SECOND:g} s, but at least 1 s is expected.",
                )
            values[name] = value / SECOND
        elif value is not None:
            values[name] = value
    return platforms.ProbeSettings(**values)
