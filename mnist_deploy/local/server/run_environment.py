"""The environment variables by which the process of a run finds this workspace."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping

from .. import RESOURCE_GROUP, SUBSCRIPTION, WORKSPACE_NAME
from ..core.runs import Run, Runs
from ..discovery import ControlPlaneAddress
from ..host import processes
from ..start_modules import program_folders, write_start_modules
from ..tokens import derive

INHERITED = (*processes.INHERITED, "MNIST_DEPLOY_DATA")
TOKEN_LIFETIME = 7 * 24 * 3600  # seconds


def client_environment(endpoint: ControlPlaneAddress) -> dict[str, str]:
    """The environment variables of a process that is a client of this workspace."""
    hooks = write_start_modules(endpoint.folder / "python")
    base = {name: os.environ[name] for name in INHERITED if name in os.environ}
    base |= endpoint.environment()
    base["PATH"] = os.pathsep.join([*map(str, program_folders()), base.get("PATH", "")])
    base["PYTHONPATH"] = os.pathsep.join(
        filter(None, [*map(str, hooks), base.get("PYTHONPATH", "")])
    )
    return base


def run_environment(
    endpoint: ControlPlaneAddress, runs: Runs, base: Mapping[str, str]
) -> Callable[[Run], dict[str, str]]:
    """A function of a run that returns the environment variables of its process.

    Parameters
    ----------
    base : mapping of str to str
        As `client_environment` returns it.
    """
    secret = derive(endpoint.token, "discovery")

    def environment(run: Run) -> dict[str, str]:
        workspace = run.other.get("workspace", {})
        experiment = runs.get_experiment(run.experiment)
        return {
            **base,
            "PYTHONUNBUFFERED": "1",
            "MPLBACKEND": "agg",
            "AZUREML_RUN_ID": run.id,
            "AZUREML_ARM_SUBSCRIPTION": workspace.get("subscription", SUBSCRIPTION),
            "AZUREML_ARM_RESOURCEGROUP": workspace.get("group", RESOURCE_GROUP),
            "AZUREML_ARM_WORKSPACE_NAME": workspace.get("workspace", WORKSPACE_NAME),
            "AZUREML_ARM_PROJECT_NAME": experiment.name,
            "AZUREML_EXPERIMENT_ID": run.experiment,
            "AZUREML_WORKSPACE_ID": runs.store.id,
            "AZUREML_RUN_TOKEN": endpoint.token,
            "AZUREML_RUN_TOKEN_EXPIRY": str(int(time.time()) + TOKEN_LIFETIME),
            "AZUREML_SERVICE_ENDPOINT": endpoint.url,
            "AZUREML_DISCOVERY_SERVICE_ENDPOINT": f"{endpoint.url}/discovery/{secret}",
            # With another identity the SDK requests a token from Azure.
            "AZUREML_IDENTITY_IN_USE": "Managed",
            "MLFLOW_RUN_ID": run.id,
            "MLFLOW_EXPERIMENT_ID": experiment.id,
            "MLFLOW_EXPERIMENT_NAME": experiment.name,
        }

    return environment
