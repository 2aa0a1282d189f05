"""Container specs of online deployments, from the requests that create or change them."""

from __future__ import annotations

from typing import TypeVar

from ..core.container_spec import ContainerSpec, Upload
from ..core.faults import Invalid, NotSupported
from ..core.records import Code, Environment, Model
from ..platforms import PLATFORMS
from ..rest import store
from . import mlflow_models
from .deployment_requests import (
    CodeConfiguration,
    ContainerResources,
    DeploymentProperties,
    make_probe,
)
from .environments import find_environment
from .instances import parse_instance_type, parse_quantity
from .option_warnings import list_deployment_warnings
from .resources import parse_asset_id, reject_registry_reference

MANAGED_SIZE = "Standard_DS3_v2"
KUBERNETES_SIZE = {"cpu": "2", "memory": "8Gi"}
Asset = TypeVar("Asset", Model, Code)


def make_container_spec(properties: DeploymentProperties) -> ContainerSpec:
    """The container spec of a deployment.

    Raises
    ------
    Invalid
        If there is no environment.
    NotFound
        If the model, the environment or the code is not registered.
    NotSupported
        If the deployment needs an image, GPUs, or another feature that only Azure has.
    """
    reject_unsupported_options(properties)
    code, model = properties.code_configuration, find_asset(Model, "models", properties.model)
    if code is None:
        script = mlflow_models.SCRIPT
        uploads: tuple[Upload, ...] = (mlflow_models.prepare_upload(store(), model),)
    else:
        script, source = code.scoring_script, find_asset(Code, "codes", code.code_id)
        uploads = tuple(Upload(path) for path in source.artifacts) if source else ()
    environment = find_deployment_environment(properties.environment_id, code, model)
    reject_windows(environment)
    cpu_cores, memory_gb = parse_size(properties)
    timeout = properties.limits.with_defaults(PLATFORMS["managed"].defaults).timeout
    return ContainerSpec(
        script=script,
        uploads=uploads,
        models=(model,) if model else (),
        conda=environment.conda,
        environment=environment.id if properties.environment_id else "",
        variables={
            **environment.variables,
            "SCORING_TIMEOUT_MS": str(max(1, round(1000 * (timeout or 0)))),
            **{
                name: value or ""
                for name, value in (properties.environment_variables or {}).items()
            },
        },
        cpu_cores=cpu_cores,
        memory_gb=memory_gb,
        insights=bool(properties.app_insights_enabled),
        liveness=make_probe("liveness_probe", properties.liveness_probe),
        warnings=tuple(list_deployment_warnings(properties, environment)),
    )


def find_deployment_environment(
    environment_id: str | None, code: CodeConfiguration | None, model: Model | None
) -> Environment:
    """The environment of a deployment; without code and environment, that of the MLflow model.

    Raises
    ------
    Invalid
        If a deployment with code has no environment.
    """
    if environment_id:
        return find_environment(environment_id)
    if code is None and model is not None:
        return mlflow_models.read_environment(store(), model)
    raise Invalid("deployment", "The deployment has no environment: pass environment=.")


def reject_unsupported_options(properties: DeploymentProperties) -> None:
    """Raise `NotSupported` for options that are set; a warning could be overlooked."""
    options = {
        "data_collector": properties.data_collector,
        "model_mount_path": properties.model_mount_path,
        "private_network_connection": properties.requires_private_network,
        "startup_probe": properties.startup_probe,
    }
    for option, value in options.items():
        if value:
            raise NotSupported(f"a deployment with {option}")


def reject_windows(environment: Environment) -> None:
    if environment.other.get("v2", {}).get("os_type") == "Windows":
        raise NotSupported(
            f"a deployment with the environment {environment.id}, whose os_type is Windows"
        )


def find_asset(kind: type[Asset], plural: str, asset_id: str | None) -> Asset | None:
    """The asset with an id; None for an empty id."""
    if not asset_id:
        return None
    reject_registry_reference(asset_id)
    return store().get(kind, *parse_asset_id(plural, asset_id))


def parse_size(properties: DeploymentProperties) -> tuple[float, float]:
    """(cores, memory in GB) of an instance."""
    if properties.endpoint_compute_type == "Managed":
        return parse_instance_type(properties.instance_type or MANAGED_SIZE)
    requested = properties.container_resource_requirements or ContainerResources()
    requests = drop_missing(requested.container_resource_requests)
    limits = drop_missing(requested.container_resource_limits)
    size = KUBERNETES_SIZE | requests | limits
    if size.get("gpu", "0") != "0":
        raise NotSupported("a deployment with resources.limits.gpu: GPUs")
    for name in ("cpu", "memory"):
        if name in requests and name in limits:
            requested_amount = parse_quantity(f"resources.requests.{name}", requests[name])
            if parse_quantity(f"resources.limits.{name}", limits[name]) < requested_amount:
                raise Invalid(
                    "resources",
                    f"resources.limits.{name} is {limits[name]}, but at least "
                    f"resources.requests.{name}, {requests[name]}, is expected.",
                )
    cores = parse_quantity("resources.limits.cpu", size["cpu"])
    return cores, parse_quantity("resources.limits.memory", size["memory"]) / 2**30


def drop_missing(quantities: dict[str, str | None] | None) -> dict[str, str]:
    return {name: value for name, value in (quantities or {}).items() if value}
