"""What a service is made of, and how large its container is."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import DeploymentError
from .preflight import parse_script
from .sdk_call import reason
from .tutorial import tutorial_file

if TYPE_CHECKING:
    from azureml.core import Environment
    from azureml.core.model import InferenceConfig
    from azureml.core.webservice.aci import AciServiceDeploymentConfiguration


def build_inference_config(
    environment: Environment, entry_script: str | os.PathLike[str] = "score.py"
) -> InferenceConfig:
    """Say what runs in the service: a scoring script in an environment.

    Wraps the tutorial's ``InferenceConfig(entry_script="score.py", environment=myenv)``.

    Parameters
    ----------
    environment : azureml.core.Environment
    entry_script : path-like
        Looked for in the working directory, then among the tutorial's own files.

    Returns
    -------
    azureml.core.model.InferenceConfig

    Raises
    ------
    DeploymentError
        There is no such script, it does not compile, or it lacks init() or run().
    """
    from azureml.core.model import InferenceConfig
    from azureml.exceptions import AzureMLException

    script = Path(entry_script)
    if not script.is_file():
        try:
            script = tutorial_file(str(entry_script))
        except FileNotFoundError:
            raise DeploymentError(
                f"There is no scoring script {entry_script} in this folder. Expected a Python "
                "file with init() and run(data)."
            ) from None
    parse_script(script)
    try:
        return InferenceConfig(entry_script=str(script), environment=environment)
    except AzureMLException as error:
        raise DeploymentError(f"{script} cannot be deployed: {reason(error)}") from error


def build_aci_config(
    cpu_cores: float = 1,
    memory_gb: float = 1,
    tags: dict[str, str] | None = None,
    description: str = "Predict MNIST with sklearn",
    **aci: Any,
) -> AciServiceDeploymentConfiguration:
    """Say how large the container is, and how the service is described.

    Wraps the tutorial's ``AciWebservice.deploy_configuration``.

    Parameters
    ----------
    cpu_cores, memory_gb : float
        More than 0; memory in GB.
    tags : dict of str to str, optional
        By default data=MNIST and method=sklearn.
    description : str
    **aci
        Whatever else `AciWebservice.deploy_configuration` takes; ``auth_enabled=True`` makes
        the service ask for a key.

    Returns
    -------
    azureml.core.webservice.aci.AciServiceDeploymentConfiguration

    Raises
    ------
    DeploymentError
        A value that no container can have.
    TypeError
        An argument that the SDK does not know.
    """
    from azureml.core.webservice import AciWebservice
    from azureml.exceptions import AzureMLException

    for name, value in (("cpu_cores", cpu_cores), ("memory_gb", memory_gb)):
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < 1e6:
            raise DeploymentError(f"{name} is {value!r}; expected a number above 0.")
    if tags is None:
        tags = {"data": "MNIST", "method": "sklearn"}
    try:
        return AciWebservice.deploy_configuration(
            cpu_cores=cpu_cores, memory_gb=memory_gb, tags=tags, description=description, **aci
        )
    except AzureMLException as error:
        raise DeploymentError(f"The ACI configuration is not valid: {reason(error)}") from error
