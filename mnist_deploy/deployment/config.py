"""Configurations of a service: scoring script and environment, and the size of its container."""

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

_DEFAULT_SCRIPT = "score.py"


def build_inference_config(
    environment: Environment,
    entry_script: str | os.PathLike[str] = _DEFAULT_SCRIPT,
    source_directory: str | os.PathLike[str] | None = None,
) -> InferenceConfig:
    """Build the inference configuration: a scoring script and its environment.

    Wraps the tutorial's ``InferenceConfig(entry_script="score.py", environment=myenv)``.

    Parameters
    ----------
    environment : azureml.core.Environment
    entry_script : path-like
        A path in the working directory. If there is no ``score.py``, the tutorial's is used, and
        a line is printed.
    source_directory : path-like, optional
        A folder that is uploaded with all its files; the script's path is then relative to it.

    Returns
    -------
    azureml.core.model.InferenceConfig

    Raises
    ------
    DeploymentError
        The script does not exist, does not compile, or lacks init() or run().
    """
    from azureml.core.model import InferenceConfig
    from azureml.exceptions import AzureMLException

    check_kind("environment", environment, "azureml.core.Environment", "fetch_environment(ws)")
    script, _ = find_script(entry_script, source_directory)
    folder = None if source_directory is None else os.fspath(source_directory)
    try:
        # With slashes: the path is used in a Linux container.
        return InferenceConfig(script.as_posix(), source_directory=folder, environment=environment)
    except (AzureMLException, UnicodeError) as error:  # the SDK decodes with the locale's encoding
        raise DeploymentError(f"{script} cannot be deployed: {reason(error)}") from error


def find_script(
    entry_script: str | os.PathLike[str], source_directory: str | os.PathLike[str] | None = None
) -> tuple[Path, Path]:
    """Return the script's path as the SDK expects it, and its path on disk.

    If the default script does not exist in the working directory, the tutorial's is returned.
    """
    script, path = Path(entry_script), Path(source_directory or "", entry_script)
    if not path.is_file() and source_directory is None and str(script) == _DEFAULT_SCRIPT:
        script = path = tutorial_file(_DEFAULT_SCRIPT)
        print("There is no score.py in this folder: the tutorial's score.py is deployed.")
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
    **options: Any,
) -> Config:
    """Check the size of a container and call the SDK's ``deploy_configuration``."""
    from azureml.exceptions import AzureMLException

    for name, value in (("cpu_cores", cpu_cores), ("memory_gb", memory_gb)):
        if not isinstance(value, Real) or not 0 < value < 1e6:
            raise DeploymentError(f"{name} is {value!r}; expected a number above 0.")
        options[name] = float(value)  # the SDK cannot serialize NumPy's numbers
    try:
        return deploy_configuration(tags=tags, **options)
    except AzureMLException as error:
        raise DeploymentError(f"The configuration is not valid: {reason(error)}") from error
