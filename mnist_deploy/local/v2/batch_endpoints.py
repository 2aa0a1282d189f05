"""Batch endpoints, and the deployments that define the batch jobs of an invocation."""

from __future__ import annotations

import dataclasses
import re
from datetime import timedelta
from typing import Annotated, Any, Literal

from flask import Blueprint, Response, jsonify
from msgspec import Meta, Struct

from ..bodies import Document, Labels, body, convert, texts
from ..core.faults import Invalid, NotFound, NotSupported
from ..core.records import BatchDeployment, BatchEndpoint, Code, Compute, Model, now
from ..rest import WORKSPACE, state, store
from ..validation import check_variables
from . import mlflow_models
from .container_specs import find_asset, find_deployment_environment
from .deployment_requests import CodeConfiguration
from .endpoints import NAME, NAME_RULE
from .resources import LOCATION, resource, resource_id, serialize_list

ENDPOINTS = f"{WORKSPACE}/batchEndpoints"
ENDPOINT = f"{ENDPOINTS}/<endpoint>"
DEPLOYMENTS = f"{ENDPOINT}/deployments"
FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._ -]{0,254}")
MAX_NUMBER = 2**31 - 1
SUMMARY_ONLY = "SummaryOnly"

Positive = Annotated[int, Meta(ge=1, le=MAX_NUMBER)]

batch_endpoint_api = Blueprint("batch_endpoints", __name__)


class Defaults(Struct, rename="camel"):
    deployment_name: str | None = None


class BatchEndpointProperties(Struct, rename="camel"):
    auth_mode: str = "aadToken"
    defaults: Defaults | None = None
    description: str | None = None
    properties: Labels | None = None


class BatchEndpointRequest(Struct):
    properties: BatchEndpointProperties
    tags: Labels | None = None


class AssetReference(Struct, rename="camel", frozen=True):
    asset_id: str | None = None


class RetrySettings(Struct, rename="camel", frozen=True):
    max_retries: Annotated[int, Meta(ge=0, le=MAX_NUMBER)] | None = None
    timeout: timedelta | None = None


class InstanceResources(Struct, rename="camel", frozen=True):
    instance_count: Annotated[int, Meta(ge=1, le=MAX_NUMBER)] | None = None
    instance_type: str | None = None
    properties: dict[str, Any] | None = None


class BatchSettings(Struct, rename="camel", kw_only=True):
    """The properties of ``BatchDeployments_CreateOrUpdate``, with its defaults."""

    code_configuration: CodeConfiguration | None = None
    compute: str = ""
    deployment_configuration: Any = None
    environment_id: str = ""
    environment_variables: dict[str, Any] = {}
    error_threshold: Annotated[int, Meta(ge=-1, le=MAX_NUMBER)] = -1
    logging_level: str = "Info"
    max_concurrency_per_instance: Positive = 1
    mini_batch_size: Positive = 10
    model: AssetReference = AssetReference()
    output_action: Literal["AppendRow", "SummaryOnly"] = "AppendRow"
    output_file_name: str = "predictions.csv"
    resources: InstanceResources = InstanceResources()
    retry_settings: RetrySettings = RetrySettings()
    description: str = ""
    properties: Labels = {}


class BatchDeploymentRequest(Struct):
    properties: Document
    tags: Labels | None = None


def parse_settings(sent: Document) -> BatchSettings:
    """Parse the settings of a deployment, with Azure's defaults for missing fields.

    Raises
    ------
    Invalid
        If a value is outside its range.
    """
    settings = convert({name: value for name, value in sent.items() if value is not None},
                       BatchSettings)  # fmt: skip
    if not FILE_NAME.fullmatch(settings.output_file_name):
        raise Invalid(
            "deployment",
            f"output_file_name is {settings.output_file_name[:60]!r}: expected a file name, "
            "such as predictions.csv.",
        )
    if settings.logging_level.lower() not in ("debug", "info", "warning"):
        raise Invalid(
            "deployment",
            f"logging_level is {settings.logging_level[:60]!r}: expected debug, info or warning.",
        )
    timeout = settings.retry_settings.timeout
    if timeout is not None and timeout <= timedelta(0):
        raise Invalid("deployment", "retry_settings.timeout: expected more than 0 seconds.")
    check_variables(settings.environment_variables)
    return settings


def find_batch_endpoint(name: str) -> BatchEndpoint:
    found = store().find(BatchEndpoint, name)
    if found is None:
        raise NotFound("batch endpoint", name)
    return found


def find_batch_deployment(endpoint: str, name: str) -> BatchDeployment:
    find_batch_endpoint(endpoint)
    found = store().find(BatchDeployment, f"{endpoint}/{name}")
    if found is None:
        raise NotFound("deployment", f"{name} of batch endpoint {endpoint}")
    return found


def list_batch_deployments(endpoint: str) -> list[BatchDeployment]:
    prefix = f"{find_batch_endpoint(endpoint).name}/"
    return [each for each in store().all(BatchDeployment) if each.name.startswith(prefix)]


@batch_endpoint_api.get(ENDPOINTS)
def list_batch_endpoints(**_: str) -> Response:
    return jsonify(serialize_list(store().all(BatchEndpoint), serialize_batch_endpoint))


@batch_endpoint_api.get(ENDPOINT)
def get_batch_endpoint(endpoint: str, **_: str) -> Response:
    return jsonify(serialize_batch_endpoint(find_batch_endpoint(endpoint)))


@batch_endpoint_api.put(ENDPOINT)
def put_batch_endpoint(endpoint: str, **_: str) -> Response:
    """Create or change an endpoint."""
    requested = body(BatchEndpointRequest)
    properties = requested.properties
    check_name("batch endpoint", endpoint)
    if properties.auth_mode.lower() != "aadtoken":
        raise Invalid(
            "auth_mode",
            f"auth_mode is {properties.auth_mode!r}: expected aad_token, the only mode of batch "
            "endpoints.",
        )
    default = properties.defaults.deployment_name if properties.defaults else None
    with store().transaction():
        before = store().find(BatchEndpoint, endpoint)
        if default:
            find_batch_deployment(endpoint, default)
        if before is None:
            store().put(BatchEndpoint(endpoint, now()))
        changed = store().change(
            BatchEndpoint,
            endpoint,
            "1",
            lambda found: dataclasses.replace(
                found,
                default=found.default if default is None else default,
                description=properties.description or "",
                tags=texts(requested.tags),
                properties=texts(properties.properties),
            ),
        )
    answer = jsonify(serialize_batch_endpoint(changed))
    answer.status_code = 201 if before is None else 200
    return answer


def check_name(kind: str, name: str) -> None:
    if not NAME.fullmatch(name):
        raise Invalid(kind, f"{name[:60]!r} is not a valid name of a {kind}. Expected {NAME_RULE}.")


@batch_endpoint_api.delete(ENDPOINT)
def delete_batch_endpoint(endpoint: str, **_: str) -> Response:
    if store().find(BatchEndpoint, endpoint) is None:
        return Response(status=204)
    with store().transaction():
        for deployment in list_batch_deployments(endpoint):
            store().delete(BatchDeployment, deployment.name, "1")
        store().delete(BatchEndpoint, endpoint, "1")
    return Response(status=200)


def serialize_batch_endpoint(endpoint: BatchEndpoint) -> Document:
    parts = ("batchEndpoints", endpoint.name)
    properties = {
        "authMode": "aadToken",
        "defaults": {"deploymentName": endpoint.default} if endpoint.default else {},
        "description": endpoint.description,
        "properties": endpoint.properties,
        "provisioningState": "Succeeded",
        "scoringUri": f"{state().url}{resource_id(*parts)}/jobs",
    }
    return resource(parts, properties, endpoint.created, location=LOCATION, tags=endpoint.tags)


@batch_endpoint_api.get(DEPLOYMENTS)
def list_deployments(endpoint: str, **_: str) -> Response:
    return jsonify(serialize_list(list_batch_deployments(endpoint), serialize_batch_deployment))


@batch_endpoint_api.get(f"{DEPLOYMENTS}/<deployment>")
def get_batch_deployment(endpoint: str, deployment: str, **_: str) -> Response:
    return jsonify(serialize_batch_deployment(find_batch_deployment(endpoint, deployment)))


@batch_endpoint_api.put(f"{DEPLOYMENTS}/<deployment>")
def put_batch_deployment(endpoint: str, deployment: str, **_: str) -> Response:
    """Create or change a deployment; processes start only with an invocation."""
    requested = body(BatchDeploymentRequest)
    check_name("batch deployment", deployment)
    check_settings(parse_settings(requested.properties))
    name = f"{find_batch_endpoint(endpoint).name}/{deployment}"
    with store().transaction():
        before = store().find(BatchDeployment, name)
        if before is None:
            store().put(BatchDeployment(name, now()))
        changed = store().change(
            BatchDeployment,
            name,
            "1",
            lambda found: dataclasses.replace(
                found, tags=texts(requested.tags), settings=requested.properties
            ),
        )
    answer = jsonify(serialize_batch_deployment(changed))
    answer.status_code = 201 if before is None else 200
    return answer


def check_settings(settings: BatchSettings) -> None:
    """Reject a deployment whose jobs cannot be started.

    Raises
    ------
    Invalid
        If the deployment has no environment or no cluster.
    NotFound
        If a model, environment, code or cluster is not registered.
    NotSupported
        For pipeline components, and for models other than MLflow models without code.
    """
    if settings.deployment_configuration is not None:
        raise NotSupported("PipelineComponentBatchDeployment, only ModelBatchDeployment")
    model = find_asset(Model, "models", settings.model.asset_id)
    if settings.code_configuration is None:
        mlflow_models.check_model(store(), model)
    else:
        find_asset(Code, "codes", settings.code_configuration.code_id)
    find_deployment_environment(settings.environment_id, settings.code_configuration, model)
    find_cluster(settings.compute)


def find_cluster(compute: str) -> Compute:
    """Return the AmlCompute of a deployment, by its name or id."""
    name = compute.removeprefix("azureml:").rpartition("/")[2]
    if not name:
        raise Invalid("compute", "The deployment has no compute: pass the name of an AmlCompute.")
    found = store().get(Compute, name)
    if found.kind != "AmlCompute":
        raise Invalid("compute", f"{name} is a compute of type {found.kind}: expected AmlCompute.")
    return found


@batch_endpoint_api.delete(f"{DEPLOYMENTS}/<deployment>")
def delete_batch_deployment(endpoint: str, deployment: str, **_: str) -> Response:
    if store().find(BatchDeployment, f"{endpoint}/{deployment}") is None:
        return Response(status=204)
    with store().transaction():
        store().delete(BatchDeployment, f"{endpoint}/{deployment}", "1")
        if find_batch_endpoint(endpoint).default == deployment:
            store().change(
                BatchEndpoint, endpoint, "1", lambda found: dataclasses.replace(found, default="")
            )
    return Response(status=200)


def serialize_batch_deployment(deployment: BatchDeployment) -> Document:
    endpoint, _, name = deployment.name.partition("/")
    properties = {
        "errorThreshold": -1,
        "maxConcurrencyPerInstance": 1,
        "miniBatchSize": 10,
        "outputAction": "AppendRow",
        "retrySettings": {"maxRetries": 3, "timeout": "PT30S"},
        **{key: value for key, value in deployment.settings.items() if value is not None},
        "provisioningState": "Succeeded",
    }
    parts = ("batchEndpoints", endpoint, "deployments", name)
    return resource(parts, properties, deployment.created, location=LOCATION, tags=deployment.tags)
