"""Warnings for options of endpoints and deployments that have another effect here than on Azure.

A warning begins with the name of its option, and is written to the log of the deployment and to the
output of ``show``. Options whose absence would be noticed too late are rejected instead, see
`container_specs.reject_unsupported_options`.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..core.curated import find_curated_warning
from ..core.records import Environment
from .deployment_requests import DeploymentProperties, make_probe

# Base images of Microsoft, which hold Python and the inference server, or no Python packages.
DEFAULT_IMAGES = "mcr.microsoft.com/azureml/"
# how-to-deploy-online-endpoints: the conda file must list the inference server.
SERVERS = ("azureml-inference-server-http", "azureml-defaults")


def list_endpoint_warnings(access: str, identities: object) -> Iterator[str]:
    """Warnings for the options of an endpoint.

    Parameters
    ----------
    access : str
        ``Enabled`` or ``Disabled``.
    identities : object
        The user-assigned identities that were requested.
    """
    if access == "Disabled":
        yield (
            "public_network_access: no private endpoint is created; all programs of this machine "
            "can connect to the scoring URI on 127.0.0.1"
        )
    if identities:
        yield (
            "identity: the user-assigned identity is only recorded; a script gets no token of "
            "Azure for it"
        )


def list_deployment_warnings(
    properties: DeploymentProperties, environment: Environment
) -> Iterator[str]:
    """Warnings for the options of a deployment and for its environment."""
    if properties.scale_settings and properties.scale_settings.scale_type == "TargetUtilization":
        yield "scale_settings: there is no autoscaler here; the deployment keeps min_instances"
    if properties.egress_public_network_access == "Disabled":
        yield "egress_public_network_access: outgoing connections of the script are not restricted"
    if properties.endpoint_compute_type == "Kubernetes" and properties.instance_type:
        yield (
            f"instance_type: {properties.instance_type} is not used; resources set cores and memory"
        )
    if properties.readiness_probe:
        make_probe("readiness_probe", properties.readiness_probe)
        yield "readiness_probe: a container gets requests as soon as its init() has returned"
    if properties.code_configuration is not None:  # else Azure adds the server to the image itself
        yield from list_environment_warnings(environment)


def list_environment_warnings(environment: Environment) -> Iterator[str]:
    curated = find_curated_warning(environment.image)
    if curated:
        yield curated
        return
    image = environment.image or ""
    if image and not image.startswith(DEFAULT_IMAGES):
        yield f"environment: the script runs in this Python, not in the image {image}"
    if environment.conda is None:
        if image.startswith(DEFAULT_IMAGES):
            yield (
                "environment: it has no conda file; the script uses the packages of this Python, "
                f"not those of the image {image}"
            )
    elif not any(server in str(environment.conda) for server in SERVERS):
        yield (
            "environment: its conda file lacks azureml-inference-server-http; on Azure the "
            "container would not start"
        )
