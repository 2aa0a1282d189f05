"""The way over: from a v1 service to a v2 endpoint, with proof."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

from ..client import call_service
from ..client.inputs import Inputs
from ..deployment.config import find_script
from ..errors import DeploymentError
from ..sdk import Deadline, check_kind
from .endpoint import DEPLOYMENT_LIMIT, call_endpoint, finish, roll_out, rolling_out

if TYPE_CHECKING:
    from azure.ai.ml import MLClient
    from azure.ai.ml.entities import ManagedOnlineEndpoint
    from azureml.core.webservice import AciWebservice, AksWebservice

DEPLOYMENT = "blue"
_SCHEMA = "https://azuremlschemas.azureedge.net/latest/{}.schema.json"
_IMAGE = "mcr.microsoft.com/azureml/openmpi4.1.0-ubuntu20.04:latest"  # v1's default, without a date
_SET_BY_AZURE = ("AZUREML_", "AML_APP_ROOT")  # variables: SDK v1 puts them among the user's
_LONGEST_REQUEST = 180_000  # milliseconds
_SIZES = (  # cores, memory in GB, VM size: the smallest of which both are enough is taken
    (2, 7, "Standard_DS2_v2"),
    (4, 14, "Standard_DS3_v2"),
    (8, 28, "Standard_DS4_v2"),
    (16, 56, "Standard_DS5_v2"),
)


@dataclass(frozen=True)
class Migration:
    """What became of a v1 service.

    Attributes
    ----------
    endpoint : azure.ai.ml.entities.ManagedOnlineEndpoint
    folder : Path
        With ``endpoint.yml``, ``deployment.yml``, ``conda.yml``, ``scoring/``, ``MIGRATION.md``.
    compared, different : int
        Images that were scored by both, and labels that differ.
    carried_over : tuple of str
    changed, lost : tuple of (str, str)
        What it is, and what to do.
    """

    endpoint: ManagedOnlineEndpoint
    folder: Path
    compared: int
    different: int
    carried_over: tuple[str, ...]
    changed: tuple[tuple[str, str], ...]
    lost: tuple[tuple[str, str], ...]

    def __str__(self) -> str:
        proof = f"{self.compared:,} images were scored by both; {self.different:,} labels differ."
        parts = [f"# From the service to the endpoint {self.endpoint.name}", proof]
        parts += ["## Carried over", "\n".join(f"* {what}" for what in self.carried_over)]
        for title, entries in (("Changed", self.changed), ("Lost", self.lost)):
            rows = "\n".join(f"| {what} | {advice} |" for what, advice in entries)
            table = f"| what | what to do |\n| --- | --- |\n{rows}" if rows else "Nothing."
            parts += [f"## {title}", table]
        return "\n\n".join(parts) + "\n"

    _repr_markdown_ = __str__


def migrate_service(
    service: AciWebservice | AksWebservice,
    client: MLClient,
    folder: str | os.PathLike[str],
    images: Inputs,
    *,
    entry_script: str | os.PathLike[str] = "score.py",
    timeout: float = DEPLOYMENT_LIMIT,
) -> Migration:
    """Bring a v1 service to an online endpoint of SDK v2, and prove that both answer alike.

    Writes the files that ``az ml online-endpoint create`` and ``az ml online-deployment create``
    take, deploys from them, scores the images on both and compares every label. Nothing is deleted.

    Parameters
    ----------
    service : azureml.core.webservice.AciWebservice or AksWebservice
        A healthy one, with one model.
    client : azure.ai.ml.MLClient
        Of the same workspace.
    folder : path-like
        Made if need be; files of an earlier try in it are replaced.
    images : array-like
        As of `call_service`.
    entry_script : path-like
        What the service runs: neither SDK gives it back. Where there is no ``score.py`` it is the
        tutorial's, and a line says so.
    timeout : float
        In seconds, for the deployment.

    Returns
    -------
    Migration
        Whose text is in ``MIGRATION.md`` as well, and which a notebook shows.

    Raises
    ------
    DeploymentError, DeploymentTimeout
        The service is not healthy, has several models, or was made from an image. Or as
        `deploy_to_endpoint`.
    ScoringError
        One of the two could not score the images.
    """
    from azure.ai.ml import load_online_deployment, load_online_endpoint

    _check(service)
    _, script = find_script(entry_script)
    target = Path(folder)
    _write(target, service, script)
    deadline = Deadline(timeout)
    with rolling_out(client, service.name, DEPLOYMENT, deadline):
        endpoint = load_online_endpoint(source=target / "endpoint.yml")
        finish(deadline, client.online_endpoints.begin_create_or_update, endpoint)
        deployment = load_online_deployment(source=target / "deployment.yml")
        endpoint = roll_out(client, deployment, {DEPLOYMENT: 100}, deadline)
    before, now = call_service(service, images), call_endpoint(client, endpoint, images)
    migration = Migration(
        endpoint=endpoint,
        folder=target,
        compared=len(before),
        different=int(np.sum(before != now)),
        carried_over=_carried_over(service),
        changed=tuple(_changed(service, endpoint)),
        lost=_lost(service, script.read_text(encoding="utf-8")),
    )
    (target / "MIGRATION.md").write_text(str(migration), encoding="utf-8")
    return migration


def _check(service: Any) -> None:
    check_kind("service", service, "azureml.core.Webservice", "ws.webservices[name]")
    if getattr(service, "versions", None):
        raise DeploymentError(
            f"{service.name!r} is an AksEndpoint with the versions {', '.join(service.versions)}: "
            "deploy each as a service of its own, or use deploy_to_endpoint for each of them."
        )
    if service.state != "Healthy":
        raise DeploymentError(
            f"The service {service.name!r} is {service.state}: there is nothing to compare with. "
            "Mend it first, or use deploy_to_endpoint.",
            state=service.state,
        )
    if service.environment is None or len(service.models) != 1:
        raise DeploymentError(
            f"The service {service.name!r} has {len(service.models)} models and "
            f"{'an' if service.environment else 'no'} environment. An online deployment takes one "
            "of each: register several models as one folder, and deploy what was made from an "
            "image with an InferenceConfig first."
        )


def _write(folder: Path, service: Any, script: Path) -> None:
    """The files that describe the endpoint, and the folder of its script."""
    environment, (model,) = service.environment, service.models
    (folder / "scoring").mkdir(parents=True, exist_ok=True)
    shutil.copyfile(script, folder / "scoring" / script.name)
    conda = environment.python.conda_dependencies.serialize_to_string()
    (folder / "conda.yml").write_text(conda, encoding="utf-8")
    endpoint = {
        "$schema": _SCHEMA.format("managedOnlineEndpoint"),
        "name": service.name,
        "auth_mode": "aml_token" if service.token_auth_enabled else "key",
        "description": service.description or "",
        "tags": service.tags or {},
    }
    deployment: dict[str, Any] = {
        "$schema": _SCHEMA.format("managedOnlineDeployment"),
        "name": DEPLOYMENT,
        "endpoint_name": service.name,
        "model": f"azureml:{model.name}:{model.version}",
        "code_configuration": {"code": "scoring", "scoring_script": script.name},
        "environment": {
            "conda_file": "conda.yml",
            "image": environment.docker.base_image or _IMAGE,
        },
        "environment_variables": {
            name: value
            for name, value in (environment.environment_variables or {}).items()
            if not name.startswith(_SET_BY_AZURE)
        },
        "instance_type": _instance_type(service),
        "instance_count": getattr(service, "num_replicas", None) or 1,
        "app_insights_enabled": bool(service.enable_app_insights),
    }
    settings = {  # what a service on AKS is asked to mind; ACI knows none of it
        "request_timeout_ms": min(getattr(service, "scoring_timeout_ms", 0) or 0, _LONGEST_REQUEST),
        "max_concurrent_requests_per_instance": getattr(
            service, "max_concurrent_requests_per_container", None
        ),
        "max_queue_wait_ms": getattr(service, "max_request_wait_time", None),
    }
    if any(settings.values()):
        deployment["request_settings"] = {name: each for name, each in settings.items() if each}
    if probe := getattr(service, "liveness_probe_requirements", None):
        deployment["liveness_probe"] = {
            "initial_delay": probe.initial_delay_seconds,
            "period": probe.period_seconds,
            "timeout": probe.timeout_seconds,
            "success_threshold": probe.success_threshold,
            "failure_threshold": probe.failure_threshold,
        }
    for name, content in (("endpoint", endpoint), ("deployment", deployment)):
        text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
        (folder / f"{name}.yml").write_text(text, encoding="utf-8")


def _size(service: Any) -> tuple[float, float]:
    """(cores, memory in GB) that each replica may take: on AKS its limits, where it has some."""
    wanted = service.container_resource_requirements
    cores = getattr(wanted, "cpu_limit", None) or wanted.cpu
    return cores, getattr(wanted, "memory_in_gb_limit", None) or wanted.memory_in_gb


def _instance_type(service: Any) -> str:
    wanted_cores, wanted_gb = _size(service)
    enough = (size for cores, gb, size in _SIZES if cores >= wanted_cores and gb >= wanted_gb)
    return next(enough, _SIZES[-1][2])


def _carried_over(service: Any) -> tuple[str, ...]:
    replicas = getattr(service, "num_replicas", None)
    return (
        "the model {0.name}:{0.version}".format(*service.models),
        "the scoring script, as it is",
        "the packages of the environment, in conda.yml",
        "tags, description and environment variables",
        *([f"{replicas} replicas, each now a virtual machine of its own"] if replicas else []),
    )


def _changed(service: Any, endpoint: ManagedOnlineEndpoint) -> Iterator[tuple[str, str]]:
    (cores, memory_gb), size = _size(service), _instance_type(service)
    secrets = "the tokens" if service.token_auth_enabled else "the keys"
    yield f"the address: {endpoint.scoring_uri}", "tell it to every client"
    yield secrets, "fetch new ones: client.online_endpoints.get_keys(name)"
    yield (
        f"cpu_cores={cores:g} and memory_gb={memory_gb:g} became {size}",
        "choose another size in deployment.yml, where the quota or the price asks for it",
    )
    yield (
        "a model that is a folder lies one level deeper below AZUREML_MODEL_DIR",
        "look for its files in the folder of that name",
    )
    if not (service.auth_enabled or service.token_auth_enabled):
        yield "a key is asked for now", "send 'Authorization: Bearer <key>' with each request"
    if cluster := getattr(service, "compute_name", None):
        yield (
            f"instances that Azure provides take the place of the cluster {cluster}",
            f"to stay on it, attach {cluster} with SDK v2 as a KubernetesCompute, and make a "
            "KubernetesOnlineEndpoint and a KubernetesOnlineDeployment of the files",
        )
    if (getattr(service, "scoring_timeout_ms", None) or 0) > _LONGEST_REQUEST:
        yield "a request ends after 180 s at most", "send what takes longer to a batch endpoint"
    if getattr(getattr(service, "autoscaler", None), "autoscale_enabled", False):
        yield "the number of replicas no longer follows the load", "add a rule of Azure Monitor"


def _lost(service: Any, script: str) -> tuple[tuple[str, str], ...]:
    losses = {
        "the name of your own in the address (dns_name_label, cname)": (
            getattr(service, "cname", None),
            "put API Management or Front Door with that name before the endpoint",
        ),
        "the certificate of your own (ssl_enabled)": (
            getattr(service, "ssl_enabled", None),
            "nothing: endpoints speak https with Azure's certificate",
        ),
        "the key for encryption of your own (EncryptionProperties)": (
            getattr(service, "encryption_properties", None),
            "give the workspace a customer-managed key",
        ),
        "the GPUs (gpu_cores)": (
            getattr(service.container_resource_requirements, "gpu", None),
            "choose a VM size with GPUs in deployment.yml",
        ),
        "the collection of the model's data (collect_model_data)": (
            getattr(getattr(service, "data_collection", None), "storage_enabled", None),
            "add a data_collector to deployment.yml",
        ),
        "the virtual network of the container": (
            getattr(service, "vnet_configuration", None),
            "isolate the workspace's network, and the endpoint by public_network_access",
        ),
        "Model.get_model_path in the script": (
            "get_model_path" in script,
            "read os.environ['AZUREML_MODEL_DIR']: SDK v1 is not in the container any more",
        ),
    }
    return tuple((what, advice) for what, (is_there, advice) in losses.items() if is_there)
