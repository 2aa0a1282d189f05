"""Azure's front ends of scoring containers: their status codes, limits and defaults.

On Azure a request passes a front end before it reaches the container: Envoy for managed online
endpoints, the inference router ``azureml-fe`` on Kubernetes and AKS. ACI has none: containers
answer clients directly. The values are those of Microsoft's articles "Troubleshoot online
endpoint deployment and scoring" (HTTP status codes), "Troubleshoot remote model deployment"
(SDK v1), "CLI (v2) managed online deployment YAML schema" and its Kubernetes twin, and of the
reference of ``AksWebservice.deploy_configuration``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace

RUN_FAILED = "x-ms-run-function-failed"  # "True" in an answer of Microsoft's inference server
MODEL_STATUS = "ms-azureml-model-error-statuscode"
MODEL_REASON = "ms-azureml-model-error-reason"


@dataclass(frozen=True)
class RequestSettings:
    """The limits of the requests to one deployment.

    Attributes
    ----------
    timeout : float or None
        Seconds for a request, waiting and running together. None: no limit but the server's.
    max_concurrent : int or None
        Requests that one instance runs at once. None: no limit.
    max_queue_wait : float or None
        Seconds that a request may wait before it runs. None: until `timeout`.
    """

    timeout: float | None = None
    max_concurrent: int | None = None
    max_queue_wait: float | None = None

    def max_admitted(self, instances: int) -> int | None:
        """The maximum of requests that wait or run at once on `instances`; None: no limit."""
        return None if self.max_concurrent is None else 2 * self.max_concurrent * instances

    def max_running(self, instances: int) -> int | None:
        """The maximum of requests that run at once on `instances`; None: no limit."""
        return None if self.max_concurrent is None else self.max_concurrent * instances

    def with_defaults(self, defaults: RequestSettings) -> RequestSettings:
        """These settings, and those of `defaults` where they are None."""
        own = {name: value for name, value in asdict(self).items() if value is not None}
        return replace(defaults, **own)


@dataclass(frozen=True)
class ProbeSettings:
    """The intervals and thresholds of a probe; the times are in seconds."""

    initial_delay: float = 10
    period: float = 10
    timeout: float = 2
    success_threshold: int = 1
    failure_threshold: int = 30


@dataclass(frozen=True)
class Platform:
    """One of Azure's platforms, as a client of a scoring URI sees it.

    Attributes
    ----------
    has_front_end : bool
        A router applies these limits and status codes; otherwise those of the container apply.
    model_error : int or None
        The status for the client if ``run()`` raised. None: that of the container.
    hides_every_status : bool
        `model_error` replaces any status but 200, and two headers name the original status.
    timeout : int
        The status after `RequestSettings.timeout`.
    overload : int
        The status of a request above `RequestSettings.max_admitted`, or after `max_queue_wait`.
    unavailable : int
        The status where no container is ready.
    defaults : RequestSettings
        For the limits that a deployment does not set.
    liveness : ProbeSettings
        For a deployment without a liveness probe.
    max_body : int or None
        The maximum size of a body in bytes, above which the platform's documentation states 413.
    """

    name: str
    has_front_end: bool
    model_error: int | None
    hides_every_status: bool
    timeout: int
    overload: int
    unavailable: int
    defaults: RequestSettings
    liveness: ProbeSettings
    max_body: int | None = None

    def translate_answer(
        self, status: int, headers: Mapping[str, str]
    ) -> tuple[int, dict[str, str]]:
        """The status that a client gets for a container's answer, and the added headers.

        Parameters
        ----------
        status : int
            The status of the container's answer.
        headers : mapping of str to str
            The headers of the container's answer, with names in lower case.
        """
        if self.model_error is None or status == 200:
            return status, {}
        if self.hides_every_status:
            return self.model_error, {MODEL_STATUS: str(status), MODEL_REASON: "model_error"}
        if headers.get(RUN_FAILED, "").lower() == "true":
            return self.model_error, {}
        return status, {}


AKS_PROBE = ProbeSettings(initial_delay=310, failure_threshold=3)

PLATFORMS = {
    platform.name: platform
    for platform in (
        Platform(
            name="aci",
            has_front_end=False,
            model_error=None,
            hides_every_status=False,
            timeout=500,
            overload=503,
            unavailable=503,
            defaults=RequestSettings(),
            liveness=AKS_PROBE,
        ),
        Platform(
            name="aks",
            has_front_end=True,
            model_error=502,
            hides_every_status=False,
            timeout=504,
            overload=503,
            unavailable=503,
            defaults=RequestSettings(timeout=60.0, max_concurrent=1, max_queue_wait=0.5),
            liveness=AKS_PROBE,
        ),
        Platform(
            name="managed",
            has_front_end=True,
            model_error=424,
            hides_every_status=True,
            timeout=408,
            overload=429,
            unavailable=502,  # not documented; azure-ai-ml repeats a request four times after 503
            defaults=RequestSettings(timeout=5.0, max_concurrent=1),
            liveness=ProbeSettings(),
            max_body=1_500_000,  # of older editions; "Manage quotas" of 2026 names no limit
        ),
        Platform(
            name="kubernetes",
            has_front_end=True,
            model_error=502,
            hides_every_status=False,
            timeout=504,
            overload=503,
            unavailable=502,
            defaults=RequestSettings(timeout=5.0, max_concurrent=1, max_queue_wait=0.5),
            liveness=ProbeSettings(),
        ),
    )
}


def platform_of(kind: str, compute: str) -> Platform:
    """The platform of an endpoint.

    Parameters
    ----------
    kind : str
        ``service`` (SDK v1) or ``endpoint`` (SDK v2).
    compute : str
        The name of the cluster; empty for ACI and managed online endpoints.
    """
    names = {"service": ("aci", "aks"), "endpoint": ("managed", "kubernetes")}[kind]
    return PLATFORMS[names[bool(compute)]]
