"""Azure Container Instances: the size of the container, and the deployment."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .config import build_container_config
from .service import deploy_service

if TYPE_CHECKING:
    from azureml.core import Model, Workspace
    from azureml.core.model import InferenceConfig
    from azureml.core.webservice import AciWebservice
    from azureml.core.webservice.aci import AciServiceDeploymentConfiguration


def build_aci_config(
    cpu_cores: float = 1,
    memory_gb: float = 1,
    tags: dict[str, str] | None = None,
    description: str = "",
    **aci: Any,
) -> AciServiceDeploymentConfiguration:
    """Build the deployment configuration: the size of the container, tags and description.

    Wraps the tutorial's ``AciWebservice.deploy_configuration``.

    Parameters
    ----------
    cpu_cores, memory_gb : float
        More than 0; memory in GB.
    tags : dict of str to str, optional
        The tutorial's are ``{"data": "MNIST", "method": "sklearn"}``.
    description : str
    **aci
        Other arguments of `AciWebservice.deploy_configuration`; with ``auth_enabled=True`` the
        service requires a key.

    Returns
    -------
    azureml.core.webservice.aci.AciServiceDeploymentConfiguration

    Raises
    ------
    DeploymentError
        A value is outside of its range.
    TypeError
        `AciWebservice.deploy_configuration` does not accept one of `**aci`.
    """
    from azureml.core.webservice import AciWebservice

    make = AciWebservice.deploy_configuration
    return build_container_config(make, cpu_cores, memory_gb, tags, description=description, **aci)


def deploy_to_aci(
    ws: Workspace,
    model: Model | Sequence[Model],
    inference_config: InferenceConfig,
    aci_config: AciServiceDeploymentConfiguration,
    name: str = "sklearn-mnist-svc3",
    *,
    overwrite: bool = False,
    timeout: float = 600,
) -> AciWebservice:
    """Deploy a model as a web service and wait, with visible progress, until it is healthy.

    Wraps the tutorial's ``Model.deploy`` and ``service.wait_for_deployment``.

    Parameters
    ----------
    ws : azureml.core.Workspace
    model : azureml.core.Model or sequence of Model
    inference_config : azureml.core.model.InferenceConfig
        See `build_inference_config`.
    aci_config : azureml.core.webservice.aci.AciServiceDeploymentConfiguration
        See `build_aci_config`.
    name : str
        3 to 32 lower-case letters, digits and '-', beginning with a letter.
    overwrite : bool
        Replace a service of that name.
    timeout : float
        The time-out of the whole deployment in seconds; reading the log after a failure may take
        5 s more.

    Returns
    -------
    azureml.core.webservice.AciWebservice
        The service, whose state is ``Healthy``.

    Raises
    ------
    DeploymentError
        Before the deployment: the script does not compile or lacks init() or run(), model and
        environment name different versions of scikit-learn, or a service of that name exists.
        Afterwards: the service failed; with its state, the SDK's message and the end of its log.
    DeploymentTimeout
        The service was not healthy within `timeout`; with the same details.

    Notes
    -----
    A service of the local workspace stops when the last process that uses the workspace ends;
    ``python -m mnist_deploy.local serve`` keeps it running.
    """
    from azureml.core.webservice import AciWebservice

    return deploy_service(
        AciWebservice, ws, name, model, inference_config, aci_config,
        overwrite=overwrite, timeout=timeout,
    )  # fmt: skip
