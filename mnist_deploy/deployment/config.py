"""What runs in a service: a scoring script in an environment."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import DeploymentError
from ..sdk import reason
from ..tutorial import tutorial_file
from .preflight import check_script

if TYPE_CHECKING:
    from azureml.core import Environment
    from azureml.core.model import InferenceConfig


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
    check_script(script)
    try:
        return InferenceConfig(entry_script=str(script), environment=environment)
    except AzureMLException as error:
        raise DeploymentError(f"{script} cannot be deployed: {reason(error)}") from error
