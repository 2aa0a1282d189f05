"""Score folders of files with a batch endpoint."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from ..deployment.preflight import check_script
from ..errors import DeploymentError, ScoringError
from ..sdk import Deadline, check_kind, reason
from .endpoint import DEPLOYMENT_TIMEOUT, _check_arguments, _code_folder, _quiet_sdk, finish

if TYPE_CHECKING:
    from azure.ai.ml import MLClient
    from azure.ai.ml.entities import BatchEndpoint, Environment, Model

_ENDPOINT = "azure.ai.ml.entities.BatchEndpoint"


def deploy_batch(
    client: MLClient,
    model: Model,
    environment: Environment,
    *,
    name: str,
    entry_script: str | os.PathLike[str],
    compute: str,
    source_directory: str | os.PathLike[str] | None = None,
    deployment: str = "default",
    mini_batch_size: int = 10,
    max_concurrency_per_instance: int = 1,
    instance_count: int = 1,
    error_threshold: int = -1,
    output_file_name: str = "predictions.csv",
    timeout: float = DEPLOYMENT_TIMEOUT,
) -> BatchEndpoint:
    """Deploy a model and a script that scores files to a batch endpoint, as its default deployment.

    The endpoint is created if it does not exist; a deployment of that name is updated. Nothing
    runs, and nothing costs money, until `score_batch` starts a job.

    Parameters
    ----------
    client, model, environment, name, deployment, source_directory
        See `deploy_to_endpoint`.
    entry_script : path-like
        A script with ``init()`` and ``run(mini_batch)``, which receives a list of paths and returns
        a list or a DataFrame with one row for each path.
    compute : str
        The name of an ``AmlCompute`` in the workspace.
    mini_batch_size : int
        The number of files in one call of ``run``.
    max_concurrency_per_instance, instance_count : int
        The number of processes on each instance, and the number of instances.
    error_threshold : int
        The number of failed files that the job tolerates; -1 for any number. Failed files have no
        row in the result.
    output_file_name : str
        The name of the file to which the rows are appended.
    timeout : float
        The time-out of the whole deployment in seconds.

    Returns
    -------
    azure.ai.ml.entities.BatchEndpoint

    Raises
    ------
    DeploymentError
        The deployment was rejected, or an argument is not valid.
    """
    from azure.ai.ml import entities

    _check_arguments(name, deployment, 100, model, environment)
    path = Path(source_directory or "", entry_script)
    check_script(path)
    deadline = Deadline(timeout)
    endpoints, deployments = client.batch_endpoints, client.batch_deployments
    try:
        code = _code_folder(Path(entry_script), path, source_directory)
        with _quiet_sdk(), code as (folder, scoring_script):
            endpoint = entities.BatchEndpoint(name=name)
            finish(deadline, endpoints.begin_create_or_update, endpoint)
            desired = entities.ModelBatchDeployment(
                name=deployment,
                endpoint_name=name,
                model=model.id,
                environment=environment.id,
                code_configuration=entities.CodeConfiguration(str(folder), scoring_script),
                compute=compute,
                resources=entities.ResourceConfiguration(instance_count=instance_count),
                settings=entities.ModelBatchDeploymentSettings(
                    mini_batch_size=mini_batch_size,
                    max_concurrency_per_instance=max_concurrency_per_instance,
                    error_threshold=error_threshold,
                    output_file_name=output_file_name,
                ),
            )
            finish(deadline, deployments.begin_create_or_update, desired)
        endpoint.defaults = {"deployment_name": deployment}
        return finish(deadline, endpoints.begin_create_or_update, endpoint)
    except DeploymentError:
        raise
    except Exception as error:
        raise DeploymentError(
            f"The batch deployment {deployment!r} of {name!r} failed: {reason(error)}"
        ) from error


def score_batch(
    client: MLClient,
    endpoint: BatchEndpoint,
    folder: str | os.PathLike[str],
    *,
    download_path: str | os.PathLike[str] = "scores",
) -> Path:
    """Score the files of a folder with a batch endpoint, and print the log until the job has ended.

    Parameters
    ----------
    client : azure.ai.ml.MLClient
    endpoint : azure.ai.ml.entities.BatchEndpoint
        The endpoint, whose default deployment scores the files.
    folder : path-like
        A local folder to upload.
    download_path : path-like
        The parent of the download folder, which is named after the job.

    Returns
    -------
    pathlib.Path
        The results file. Rows of a DataFrame have columns separated by spaces and no header:
        ``pandas.read_csv(path, sep=" ", header=None)``.

    Raises
    ------
    ScoringError
        The job failed, or could not be started.
    """
    from azure.ai.ml import Input

    check_kind("endpoint", endpoint, _ENDPOINT, "client.batch_endpoints.get(name)")
    try:
        default = endpoint.defaults and endpoint.defaults.deployment_name
        job = client.batch_endpoints.invoke(
            endpoint_name=endpoint.name,
            deployment_name=default,
            input=Input(type="uri_folder", path=os.fspath(folder)),
        )
        client.jobs.stream(job.name)
        target = Path(download_path, job.name)
        client.jobs.download(job.name, download_path=target, output_name="score")
    except Exception as error:
        raise ScoringError(
            f"The folder {os.fspath(folder)} was not scored by {endpoint.name!r}: {reason(error)}"
        ) from error
    files = [path for path in target.rglob("*") if path.is_file()]
    if len(files) != 1:
        raise ScoringError(
            f"The job {job.name} has {len(files)} results files in {target}; expected one."
        )
    return files[0]
