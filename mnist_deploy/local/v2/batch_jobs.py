"""Batch jobs: what an invocation of a batch endpoint starts."""

from __future__ import annotations

import os
import posixpath
import uuid
from collections.abc import Iterator, Mapping
from typing import Any

from flask import Blueprint, Response, jsonify, request
from msgspec import Struct, json

from ..bodies import Document, Labels, body, texts
from ..core.faults import Invalid, NotSupported
from ..core.job_engine import JobEngine
from ..core.records import Model
from ..core.requirements import differences
from ..core.runs import Job, JobInput, Run
from ..rest import state
from .batch_endpoints import (
    DEPLOYMENTS,
    ENDPOINT,
    SUMMARY_ONLY,
    BatchSettings,
    find_batch_deployment,
    find_batch_endpoint,
    find_cluster,
    parse_settings,
)
from .container_specs import find_asset
from .environments import find_environment
from .job_data import LITERAL, JobInputRequest, find_input
from .jobs import find_code, runs
from .resources import resource, serialize_list, workspace_names

DATA_PLANE = "/mferp/managementfrontend"
DEPLOYMENT_HEADER = "azureml-model-deployment"
DRIVER = ("python", "-P", "-m", "mnist_deploy.local.scoring.batch")
STEP = "batchscoring"
OUTPUT = "score"
MODEL = "azureml-model"  # among the inputs of the step; no name that the SDK allows for an input
MAX_RETRIES = 3  # what Azure takes where nothing is asked for
MINI_BATCH_TIMEOUT = 30.0  # seconds, likewise
OVERRIDES = ("compute", "errorThreshold", "miniBatchSize", "outputFileName", "retrySettings")

batch_job_api = Blueprint("batch_jobs", __name__)


class Properties(Struct, rename="camel"):
    experiment_name: str | None = None


class InvocationProperties(Struct, rename="camel"):
    input_data: dict[str, JobInputRequest] | None = None
    output_data: dict[str, Any] | None = None
    output_dataset: Any = None
    dataset: Any = None
    name: str | None = None
    description: str | None = None
    tags: Labels | None = None
    properties: Properties | None = None


class Invocation(Struct):
    properties: InvocationProperties


@batch_job_api.post(f"{ENDPOINT}/jobs")
def invoke(endpoint: str, **_: str) -> Response:
    """Start a batch job with the deployment that the header names, or the default one."""
    sent, asked = body(Document), body(Invocation).properties
    for option in ("output_data", "output_dataset", "dataset"):
        if getattr(asked, option):
            raise NotSupported(f"an invocation of a batch endpoint with {option}")
    if not state().has(JobEngine):
        raise NotSupported("batch jobs in a mocked workspace")
    name = request.headers.get(DEPLOYMENT_HEADER) or find_batch_endpoint(endpoint).default
    if not name:
        raise Invalid(
            "deployment",
            f"Batch endpoint {endpoint} has no default deployment: pass deployment_name=, or set "
            "endpoint.defaults.deployment_name.",
        )
    overrides = {key: sent["properties"][key] for key in OVERRIDES if key in sent["properties"]}
    settings = parse_settings(find_batch_deployment(endpoint, name).settings | overrides)
    answer = jsonify(serialize_batch_job(start_job(endpoint, name, settings, asked)))
    answer.status_code = 201
    return answer


def start_job(
    endpoint: str, deployment: str, settings: BatchSettings, asked: InvocationProperties
) -> Run:
    """Create a batch job with its one step, and queue it."""
    step = str(uuid.uuid4())
    job = make_job(step, settings, find_inputs(asked.input_data or {}))
    subscription, group, workspace = workspace_names()
    more: dict[str, Any] = {
        "target": find_cluster(settings.compute).name,
        "warnings": tuple(list_warnings(settings)),
        "properties": {"endpoint": endpoint, "deployment": deployment},
        "other": {
            "workspace": {"subscription": subscription, "group": group, "workspace": workspace}
        },
    }
    experiment_name = asked.properties.experiment_name if asked.properties else None
    with runs().store.transaction():
        experiment = runs().create_experiment(experiment_name or endpoint)
        tags = texts(asked.tags) | {"azureml.batchrun": "true"}
        run = runs().create(
            experiment,
            asked.name or f"batchjob-{uuid.uuid4()}",
            kind="batch",
            description=asked.description or "",
            tags=tags,
            **more,
        )
        child = runs().create(experiment, step, run.id, kind="step", name=STEP, job=job, **more)
    state().part(JobEngine).submit(child)
    return runs().get(run.id)


def find_inputs(sent: Mapping[str, JobInputRequest]) -> dict[str, JobInput]:
    if not sent:
        raise Invalid("input", "The invocation has no input: pass input=Input(type=…, path=…).")
    for name, asked in sent.items():
        if asked.job_input_type == LITERAL:
            raise NotSupported(f"the input {name} of a batch endpoint, which is a literal value")
        if not name or "/" in name or name.startswith(".") or name == MODEL:
            raise Invalid("input", f"{name[:60]!r} is no name for an input.")
    return {name: find_input(name, asked) for name, asked in sent.items()}


def make_job(step: str, settings: BatchSettings, inputs: dict[str, JobInput]) -> Job:
    """The process that scores the inputs, and its output where the SDK looks for that."""
    code, retry = settings.code_configuration, settings.retry_settings
    assert code is not None
    timeout = retry.timeout.total_seconds() if retry.timeout else MINI_BATCH_TIMEOUT
    document = {
        "script": code.scoring_script,
        "workers": min(count_processes(settings), os.cpu_count() or 1),
        "mini_batch_size": settings.mini_batch_size,
        "error_threshold": settings.error_threshold,
        "max_retries": MAX_RETRIES if retry.max_retries is None else retry.max_retries,
        "timeout": timeout,
        "output_file": (
            "" if settings.output_action == SUMMARY_ONLY else settings.output_file_name
        ),
        "logging_level": settings.logging_level,
    }
    paths = [f"${{{{inputs.{name}}}}}" for name in inputs]
    output = f"${{{{outputs.{OUTPUT}}}}}"
    environment = find_environment(settings.environment_id)
    variables = dict(environment.variables)
    variables |= {name: value or "" for name, value in settings.environment_variables.items()}
    variables["AZUREML_BI_OUTPUT_PATH"] = output
    model = find_asset(Model, "models", settings.model.asset_id)
    if model is not None:
        variables["AZUREML_MODEL_DIR"] = f"${{{{inputs.{MODEL}}}}}"
        inputs = inputs | {MODEL: make_model_input(model)}
    return Job(
        (*DRIVER, json.encode(document).decode(), output, *paths),
        code=find_code(code.code_id),
        variables=variables,
        inputs=inputs,
        outputs={OUTPUT: f"azureml/{step}/{OUTPUT}"},
    )


def make_model_input(model: Model) -> JobInput:
    """The folder of a model, with its file or folder in it, as in an online deployment."""
    parents = [posixpath.dirname(path.rstrip("/")) for path in model.artifacts]
    return JobInput(model.artifacts, posixpath.commonpath(parents))


def count_processes(settings: BatchSettings) -> int:
    return (settings.resources.instance_count or 1) * settings.max_concurrency_per_instance


def list_warnings(settings: BatchSettings) -> Iterator[str]:
    """What has another effect here than on Azure."""
    asked, cores = count_processes(settings), os.cpu_count() or 1
    if asked > cores:
        yield (
            f"instance_count and max_concurrency_per_instance ask for {asked} processes; this "
            f"machine has {cores} cores, and {cores} processes score"
        )
    yield from differences(find_environment(settings.environment_id).conda)


def serialize_batch_job(run: Run) -> Document:
    return resource(("jobs", run.id), {"status": run.status, "name": run.id}, run.created)


@batch_job_api.get(f"{DATA_PLANE}{ENDPOINT}/jobs")
def list_endpoint_jobs(endpoint: str, **_: str) -> Response:
    find_batch_endpoint(endpoint)
    return list_batch_jobs({"endpoint": endpoint})


@batch_job_api.get(f"{DATA_PLANE}{DEPLOYMENTS}/<deployment>/jobs")
def list_deployment_jobs(endpoint: str, deployment: str, **_: str) -> Response:
    """The jobs of a deployment; of all, if the SDK was given no name and sends ``None``."""
    find_batch_endpoint(endpoint)
    wanted = {"endpoint": endpoint}
    return list_batch_jobs(wanted if deployment == "None" else wanted | {"deployment": deployment})


def list_batch_jobs(wanted: Mapping[str, str]) -> Response:
    found = [
        run
        for run in runs().select_runs()
        if run.kind == "batch" and wanted.items() <= run.properties.items()
    ]
    return jsonify(serialize_list(found, serialize_batch_job))
