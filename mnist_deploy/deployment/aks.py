"""Azure Kubernetes Service: the size of each replica, and the deployment to a cluster."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..errors import DeploymentError
from ..sdk import Deadline, reason
from .config import build_container_config
from .service import deploy_service

if TYPE_CHECKING:
    from azureml.core import Model, Workspace
    from azureml.core.compute import AksCompute
    from azureml.core.model import InferenceConfig
    from azureml.core.webservice import AksWebservice
    from azureml.core.webservice.aks import AksServiceDeploymentConfiguration


def build_aks_config(
    cpu_cores: float = 1,
    memory_gb: float = 1,
    replicas: int = 1,
    tags: dict[str, str] | None = None,
    description: str = "",
    **aks: Any,
) -> AksServiceDeploymentConfiguration:
    """Build the deployment configuration: size and number of replicas, tags, description.

    Wraps ``AksWebservice.deploy_configuration``, for the tutorial's next step "AKS".

    Parameters
    ----------
    cpu_cores, memory_gb, tags, description
        As in `build_aci_config`, for each replica.
    replicas : int
        The number of containers; ignored with ``autoscale_enabled=True``, where
        ``autoscale_min_replicas`` and ``autoscale_max_replicas`` apply.
    **aks
        Other arguments of `AksWebservice.deploy_configuration`. By default a service requires a
        key; with ``auth_enabled=False`` it requires none, with ``token_auth_enabled=True`` a token
        that expires.

    Returns
    -------
    azureml.core.webservice.aks.AksServiceDeploymentConfiguration

    Raises
    ------
    DeploymentError, TypeError
        See `build_aci_config`.
    """
    from azureml.core.webservice import AksWebservice

    if not aks.get("autoscale_enabled"):
        aks.setdefault("num_replicas", operator.index(replicas))
    make = AksWebservice.deploy_configuration
    return build_container_config(make, cpu_cores, memory_gb, tags, description=description, **aks)


def deploy_to_aks(
    ws: Workspace,
    model: Model | Sequence[Model],
    inference_config: InferenceConfig,
    aks_config: AksServiceDeploymentConfiguration,
    cluster: AksCompute | str,
    name: str = "sklearn-mnist-aks",
    *,
    overwrite: bool = False,
    timeout: float = 1200,
) -> AksWebservice:
    """Deploy a model to a Kubernetes cluster and wait, with visible progress, until it is healthy.

    Wraps ``Model.deploy`` with a ``deployment_target``, and ``service.wait_for_deployment``.

    Parameters
    ----------
    ws, model, inference_config, name, overwrite, timeout
        As in `deploy_to_aci`; ``overwrite=True`` replaces a service on ACI as well.
    aks_config : azureml.core.webservice.aks.AksServiceDeploymentConfiguration
        See `build_aks_config`.
    cluster : azureml.core.compute.AksCompute or str
        The cluster, or its name in the workspace.

    Returns
    -------
    azureml.core.webservice.AksWebservice
        The service, whose state is ``Healthy``.

    Raises
    ------
    DeploymentError, DeploymentTimeout
        See `deploy_to_aci`; or the cluster does not exist.
    """
    from azureml.core.compute import AksCompute
    from azureml.core.webservice import AksWebservice

    if isinstance(cluster, str):
        try:
            cluster = Deadline().call(AksCompute, ws, cluster)
        except Exception as error:
            raise DeploymentError(
                f"The cluster {cluster!r} was not found in workspace {ws.name!r}: "
                f"{reason(error)} ComputeTarget.create(ws, {cluster!r}, "
                "AksCompute.provisioning_configuration()) creates one."
            ) from error
    return deploy_service(
        AksWebservice, ws, name, model, inference_config, aks_config, cluster,
        overwrite=overwrite, timeout=timeout,
    )  # fmt: skip
