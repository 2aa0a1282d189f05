"""Migrate a service of SDK v1 to an online endpoint of SDK v2, and compare their labels."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..client import call_service
from ..client.inputs import Inputs
from ..deployment.config import find_script
from ..errors import DeploymentError
from ..sdk import Deadline, check_kind
from .endpoint import DEPLOYMENT_TIMEOUT, call_endpoint, finish, report_rollout, roll_out
from .migration_report import Migration, list_carried_over, list_changes, list_losses
from .yaml_files import DEPLOYMENT, write_files

if TYPE_CHECKING:
    from azure.ai.ml import MLClient
    from azureml.core.webservice import AciWebservice, AksWebservice


def migrate_service(
    service: AciWebservice | AksWebservice,
    client: MLClient,
    folder: str | os.PathLike[str],
    images: Inputs,
    *,
    entry_script: str | os.PathLike[str] = "score.py",
    timeout: float = DEPLOYMENT_TIMEOUT,
) -> Migration:
    """Migrate a service of SDK v1 to an online endpoint of SDK v2, and compare their labels.

    Writes the files for ``az ml online-endpoint create`` and ``az ml online-deployment create``,
    deploys from them, scores the images with service and endpoint, and compares each label. The
    service is not deleted.

    Parameters
    ----------
    service : azureml.core.webservice.AciWebservice or AksWebservice
        A healthy service with one model.
    client : azure.ai.ml.MLClient
        A client of the same workspace.
    folder : path-like
        The folder for the files, which is created if it does not exist; files of an earlier
        migration are replaced.
    images : array-like
        The inputs of `call_service`.
    entry_script : path-like
        The scoring script of the service, which neither SDK returns. If there is no
        ``score.py``, the tutorial's is used, and a line is printed.
    timeout : float
        The time-out of the deployment in seconds.

    Returns
    -------
    Migration
        The report, which is also written to ``MIGRATION.md``; a notebook displays it.

    Raises
    ------
    DeploymentError, DeploymentTimeout
        The service is not healthy, has several models, or was created from an image; or see
        `deploy_to_endpoint`.
    ScoringError
        The service or the endpoint could not score the images.
    """
    from azure.ai.ml import load_online_deployment, load_online_endpoint

    _check_service(service)
    _, script = find_script(entry_script)
    target = Path(folder)
    write_files(target, service, script)
    deadline = Deadline(timeout)
    with report_rollout(client, service.name, DEPLOYMENT, deadline):
        endpoint = load_online_endpoint(source=target / "endpoint.yml")
        finish(deadline, client.online_endpoints.begin_create_or_update, endpoint)
        deployment = load_online_deployment(source=target / "deployment.yml")
        endpoint = roll_out(client, deployment, {DEPLOYMENT: 100}, deadline)
    before, after = call_service(service, images), call_endpoint(client, endpoint, images)
    migration = Migration(
        endpoint=endpoint,
        folder=target,
        compared=len(before),
        different=_count_different(before, after),
        carried_over=list_carried_over(service),
        changed=tuple(list_changes(service, endpoint)),
        lost=list_losses(service, script.read_text(encoding="utf-8")),
    )
    (target / "MIGRATION.md").write_text(str(migration), encoding="utf-8")
    return migration


def _count_different(before: np.ndarray, after: np.ndarray) -> int:
    """The number of rows for which two scripts returned different labels or numbers."""
    if before.shape != after.shape:
        return len(before)
    return int(np.sum((before != after).reshape(len(before), -1).any(axis=1)))


def _check_service(service: Any) -> None:
    """Reject a service that one online deployment cannot replace."""
    check_kind("service", service, "azureml.core.Webservice", "ws.webservices[name]")
    if getattr(service, "versions", None):
        raise DeploymentError(
            f"{service.name!r} is an AksEndpoint with the versions {', '.join(service.versions)}: "
            "deploy each as a service of its own, or use deploy_to_endpoint for each of them."
        )
    if service.state != "Healthy":
        raise DeploymentError(
            f"The service {service.name!r} is {service.state}, so that its labels cannot be "
            "compared. Repair it first, or use deploy_to_endpoint.",
            state=service.state,
        )
    if service.environment is None:
        raise DeploymentError(
            f"The service {service.name!r} has no environment: it was created from an image. "
            "Deploy it with an InferenceConfig first."
        )
    if len(service.models) != 1:
        raise DeploymentError(
            f"The service {service.name!r} has {len(service.models)} models; an online deployment "
            "takes one. Register the models as one folder first."
        )
