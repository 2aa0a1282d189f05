"""Convert a service of SDK v1 to the YAML files from which SDK v2 deploys an online endpoint."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import yaml

DEPLOYMENT = "blue"
MAX_REQUEST_TIMEOUT_MS = 180_000  # of managed online endpoints
_SCHEMA = "https://azuremlschemas.azureedge.net/latest/{}.schema.json"
_IMAGE = "mcr.microsoft.com/azureml/openmpi4.1.0-ubuntu20.04:latest"  # the default of SDK v1
_RESERVED_VARIABLES = ("AZUREML_", "AML_APP_ROOT")  # SDK v1 adds them to those of the user
_VM_SIZES = (  # cores, memory in GB, name; smallest first
    (2, 7, "Standard_DS2_v2"),
    (4, 14, "Standard_DS3_v2"),
    (8, 28, "Standard_DS4_v2"),
    (16, 56, "Standard_DS5_v2"),
)


def write_files(folder: Path, service: Any, script: Path) -> None:
    """Write ``endpoint.yml``, ``deployment.yml``, ``conda.yml`` and the folder ``scoring``."""
    (folder / "scoring").mkdir(parents=True, exist_ok=True)
    shutil.copyfile(script, folder / "scoring" / script.name)
    conda = service.environment.python.conda_dependencies.serialize_to_string()
    (folder / "conda.yml").write_text(conda, encoding="utf-8")
    _write_yaml(folder / "endpoint.yml", serialize_endpoint(service))
    _write_yaml(folder / "deployment.yml", serialize_deployment(service, script.name))


def serialize_endpoint(service: Any) -> dict[str, Any]:
    """The content of ``endpoint.yml``."""
    return {
        "$schema": _SCHEMA.format("managedOnlineEndpoint"),
        "name": service.name,
        "auth_mode": "aml_token" if service.token_auth_enabled else "key",
        "description": service.description or "",
        "tags": service.tags or {},
    }


def serialize_deployment(service: Any, script_name: str) -> dict[str, Any]:
    """The content of ``deployment.yml``."""
    environment, (model,) = service.environment, service.models
    variables = environment.environment_variables or {}
    content = {
        "$schema": _SCHEMA.format("managedOnlineDeployment"),
        "name": DEPLOYMENT,
        "endpoint_name": service.name,
        "model": f"azureml:{model.name}:{model.version}",
        "code_configuration": {"code": "scoring", "scoring_script": script_name},
        "environment": {
            "conda_file": "conda.yml",
            "image": environment.docker.base_image or _IMAGE,
        },
        "environment_variables": {
            name: value
            for name, value in variables.items()
            if not name.startswith(_RESERVED_VARIABLES)
        },
        "instance_type": choose_vm_size(service),
        "instance_count": getattr(service, "num_replicas", None) or 1,
        "app_insights_enabled": bool(service.enable_app_insights),
        "request_settings": _serialize_request_settings(service),
        "liveness_probe": _serialize_liveness_probe(service),
    }
    return {name: value for name, value in content.items() if value is not None}


def _serialize_request_settings(service: Any) -> dict[str, int] | None:
    """Limits of a service on AKS; a service on ACI has none."""
    timeout = getattr(service, "scoring_timeout_ms", None) or 0
    settings = {
        "request_timeout_ms": min(timeout, MAX_REQUEST_TIMEOUT_MS),
        "max_concurrent_requests_per_instance": getattr(
            service, "max_concurrent_requests_per_container", None
        ),
        "max_queue_wait_ms": getattr(service, "max_request_wait_time", None),
    }
    return {name: value for name, value in settings.items() if value} or None


def _serialize_liveness_probe(service: Any) -> dict[str, int] | None:
    probe = getattr(service, "liveness_probe_requirements", None)
    if not probe:
        return None
    return {
        "initial_delay": probe.initial_delay_seconds,
        "period": probe.period_seconds,
        "timeout": probe.timeout_seconds,
        "success_threshold": probe.success_threshold,
        "failure_threshold": probe.failure_threshold,
    }


def read_size(service: Any) -> tuple[float, float]:
    """Return (cores, memory in GB) of a replica: its limits if they are set, else its requests."""
    requirements = service.container_resource_requirements
    cores = getattr(requirements, "cpu_limit", None) or requirements.cpu
    return cores, getattr(requirements, "memory_in_gb_limit", None) or requirements.memory_in_gb


def choose_vm_size(service: Any) -> str:
    """The smallest VM size with the cores and the memory of a replica; else the largest."""
    needed_cores, needed_gb = read_size(service)
    fitting = (name for cores, gb, name in _VM_SIZES if cores >= needed_cores and gb >= needed_gb)
    return next(fitting, _VM_SIZES[-1][2])


def _write_yaml(path: Path, content: dict[str, Any]) -> None:
    text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
    path.write_text(text, encoding="utf-8")
