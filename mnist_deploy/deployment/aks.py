"""Azure Kubernetes Service: how large each replica is, and deploying to a cluster."""

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
    description: str = "Predict MNIST with sklearn",
    **aks: Any,
) -> AksServiceDeploymentConfiguration:
    """Say how large each replica is, how many there are, and how the service is described.

    Wraps ``AksWebservice.deploy_configuration``, for the tutorial's next step "AKS".

    Parameters
    ----------
    cpu_cores, memory_gb, tags, description
        As in `build_aci_config`, for each replica.
    replicas : int
        How many containers answer; left out where ``autoscale_enabled=True`` is passed.
    **aks
        Whatever else `AksWebservice.deploy_configuration` takes. A service asks for a key
        unless ``auth_enabled=False``, and for a token that ends with ``token_auth_enabled=True``.

    Returns
    -------
    azureml.core.webservice.aks.AksServiceDeploymentConfiguration

    Raises
    ------
    DeploymentError, TypeError
        As `build_aci_config`.
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
        As in `deploy_to_aci`; a service on container instances is replaced as well.
    aks_config
        See `build_aks_config`.
    cluster : azureml.core.compute.AksCompute or str
        Or its name in the workspace.

    Returns
    -------
    azureml.core.webservice.AksWebservice
        Healthy.

    Raises
    ------
    DeploymentError, DeploymentTimeout
        As `deploy_to_aci`, or there is no such cluster.
    """
    from azureml.core.compute import AksCompute
    from azureml.core.webservice import AksWebservice

    if isinstance(cluster, str):
        try:
            cluster = Deadline().call(AksCompute, ws, cluster)
        except Exception as error:
            raise DeploymentError(
                f"The cluster {cluster!r} cannot be had from workspace {ws.name!r}: "
                f"{reason(error)} ComputeTarget.create(ws, {cluster!r}, "
                "AksCompute.provisioning_configuration()) creates one."
            ) from error
    return deploy_service(
        AksWebservice, ws, name, model, inference_config, aks_config, cluster,
        overwrite=overwrite, timeout=timeout,
    )  # fmt: skip
