"""State what a migration from SDK v1 to SDK v2 carries over, changes and loses."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .yaml_files import MAX_REQUEST_TIMEOUT_MS, choose_vm_size, read_size

if TYPE_CHECKING:
    from azure.ai.ml.entities import ManagedOnlineEndpoint


@dataclass(frozen=True)
class Migration:
    """The result of `migrate_service`.

    Attributes
    ----------
    endpoint : azure.ai.ml.entities.ManagedOnlineEndpoint
    folder : Path
        With ``endpoint.yml``, ``deployment.yml``, ``conda.yml``, ``scoring/``, ``MIGRATION.md``.
    compared, different : int
        The number of images that service and endpoint scored, and of images whose labels differ.
    carried_over : tuple of str
        Properties of the service that the endpoint has as well.
    changed, lost : tuple of (str, str)
        Properties, each with advice.
    """

    endpoint: ManagedOnlineEndpoint
    folder: Path
    compared: int
    different: int
    carried_over: tuple[str, ...]
    changed: tuple[tuple[str, str], ...]
    lost: tuple[tuple[str, str], ...]

    def __str__(self) -> str:
        result = (
            f"The service and the endpoint scored {self.compared:,} images; "
            f"{self.different:,} labels differ."
        )
        parts = [f"# Migration of the service {self.endpoint.name} to an online endpoint", result]
        parts += ["## Carried over", "\n".join(f"* {each}" for each in self.carried_over)]
        for title, entries in (("Changed", self.changed), ("Lost", self.lost)):
            rows = "\n".join(f"| {what} | {advice} |" for what, advice in entries)
            table = f"| what | what to do |\n| --- | --- |\n{rows}" if rows else "Nothing."
            parts += [f"## {title}", table]
        return "\n\n".join(parts) + "\n"

    _repr_markdown_ = __str__


def list_carried_over(service: Any) -> tuple[str, ...]:
    replicas = getattr(service, "num_replicas", None)
    return (
        "the model {0.name}:{0.version}".format(*service.models),
        "the scoring script, unchanged",
        "the packages of the environment, in conda.yml",
        "tags, description and environment variables",
        *([f"{replicas} replicas, each on a virtual machine of its own"] if replicas else []),
    )


def list_changes(service: Any, endpoint: ManagedOnlineEndpoint) -> Iterator[tuple[str, str]]:
    """Yield what clients and operators must do differently, and how."""
    (cores, memory_gb), size = read_size(service), choose_vm_size(service)
    secrets = "the tokens" if service.token_auth_enabled else "the keys"
    yield f"the scoring URI: {endpoint.scoring_uri}", "configure it in each client"
    yield secrets, "fetch new ones: client.online_endpoints.get_keys(name)"
    yield (
        f"cpu_cores={cores:g} and memory_gb={memory_gb:g} became {size}",
        "choose another size in deployment.yml if quota or price require it",
    )
    yield (
        "a model that is a folder is one level deeper below AZUREML_MODEL_DIR",
        "read its files from the folder of that name",
    )
    if not (service.auth_enabled or service.token_auth_enabled):
        yield "a key is required", "send 'Authorization: Bearer <key>' with each request"
    if cluster := getattr(service, "compute_name", None):
        yield (
            f"instances that Azure provides replace the cluster {cluster}",
            f"to keep the cluster, attach {cluster} with SDK v2 as a KubernetesCompute, and create "
            "a KubernetesOnlineEndpoint and a KubernetesOnlineDeployment from the files",
        )
    if (getattr(service, "scoring_timeout_ms", None) or 0) > MAX_REQUEST_TIMEOUT_MS:
        yield "a request takes 180 s at most", "use a batch endpoint for longer requests"
    if getattr(getattr(service, "autoscaler", None), "autoscale_enabled", False):
        yield "the number of replicas does not depend on the load", "add a rule of Azure Monitor"


def list_losses(service: Any, script: str) -> tuple[tuple[str, str], ...]:
    """List the properties of a service that an online endpoint does not have, and alternatives."""
    losses = {
        "the custom name in the address (dns_name_label, cname)": (
            getattr(service, "cname", None),
            "put API Management or Front Door with that name before the endpoint",
        ),
        "the custom certificate (ssl_enabled)": (
            getattr(service, "ssl_enabled", None),
            "nothing: endpoints use HTTPS with Azure's certificate",
        ),
        "the customer-managed key (EncryptionProperties)": (
            getattr(service, "encryption_properties", None),
            "configure a customer-managed key for the workspace",
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
            "read os.environ['AZUREML_MODEL_DIR']: the container has no SDK v1",
        ),
    }
    return tuple((what, advice) for what, (is_used, advice) in losses.items() if is_used)
