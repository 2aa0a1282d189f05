"""What runs in a service, a scoring script in an environment, and how large its container is."""

from __future__ import annotations

import os
from collections.abc import Callable
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ..errors import DeploymentError
from ..sdk import check_kind, reason
from ..tutorial import tutorial_file
from .preflight import check_script

if TYPE_CHECKING:
    from azureml.core import Environment
    from azureml.core.model import InferenceConfig

Config = TypeVar("Config")

_OWN = "score.py"
_TAGS = {"data": "MNIST", "method": "sklearn"}


def build_inference_config(
    environment: Environment,
    entry_script: str | os.PathLike[str] = _OWN,
    source_directory: str | os.PathLike[str] | None = None,
) -> InferenceConfig:
    """Say what runs in the service: a scoring script in an environment.

    Wraps the tutorial's ``InferenceConfig(entry_script="score.py", environment=myenv)``.

    Parameters
    ----------
    environment : azureml.core.Environment
    entry_script : path-like
        Looked for in the working directory. Where there is no ``score.py`` it is the tutorial's,
        and a line says so.
    source_directory : path-like, optional
        A folder that goes into the container whole; the script's path is then one below it.

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

    check_kind("environment", environment, "azureml.core.Environment", "fetch_environment(ws)")
    script, _ = find_script(entry_script, source_directory)
    folder = None if source_directory is None else os.fspath(source_directory)
    try:
        return InferenceConfig(str(script), source_directory=folder, environment=environment)
    except (AzureMLException, UnicodeError) as error:  # it reads UTF-8 alone
        raise DeploymentError(f"{script} cannot be deployed: {reason(error)}") from error


def find_script(
    entry_script: str | os.PathLike[str], source_directory: str | os.PathLike[str] | None = None
) -> tuple[Path, Path]:
    """A scoring script as it is named, and where it lies: checked, by default the tutorial's."""
    script, path = Path(entry_script), Path(source_directory or "", entry_script)
    if not path.is_file() and source_directory is None and str(script) == _OWN:
        script = path = tutorial_file(_OWN)
        print("There is no score.py in this folder: the service runs the tutorial's.")
    if not path.is_file():
        raise DeploymentError(
            f"There is no scoring script {script} in {source_directory or 'this folder'}. Expected "
            "a Python file with init() and run(data)."
        )
    check_script(path)
    return script, path


def build_container_config(
    deploy_configuration: Callable[..., Config],
    cpu_cores: float,
    memory_gb: float,
    tags: dict[str, str] | None,
    **more: Any,
) -> Config:
    """What `build_aci_config` and `build_aks_config` share: checks, the tutorial's tags, errors."""
    from azureml.exceptions import AzureMLException

    for name, value in (("cpu_cores", cpu_cores), ("memory_gb", memory_gb)):
        if not isinstance(value, Real) or not 0 < value < 1e6:
            raise DeploymentError(f"{name} is {value!r}; expected a number above 0.")
        more[name] = float(value)  # NumPy's numbers too: the SDK's JSON knows none of them
    try:
        return deploy_configuration(tags=dict(_TAGS) if tags is None else tags, **more)
    except AzureMLException as error:
        raise DeploymentError(f"The configuration is not valid: {reason(error)}") from error
