"""Batch jobs: jobs started by invocations of batch endpoints."""

from __future__ import annotations

import os
import posixpath
import re
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from flask import Blueprint, Response, jsonify, request
from msgspec import Struct, json

from ..bodies import Document, Labels, body, convert, texts
from ..core.artifacts import check_path
from ..core.faults import Conflict, Invalid, NotSupported
from ..core.job_engine import JobEngine
from ..core.records import Model
from ..core.requirements import differences
from ..core.runs import Job, JobInput, OutputRules, Run
from ..rest import state, store
from .batch_endpoints import (
    DEPLOYMENTS,
    ENDPOINT,
    FILE_NAME,
    SUMMARY_ONLY,
    BatchSettings,
    find_batch_deployment,
    find_batch_endpoint,
    find_cluster,
    parse_settings,
)
from .container_specs import find_asset, find_deployment_environment
from .datastores import DATASTORE
from .job_data import JobInputRequest, JobOutputRequest, find_input
from .jobs import find_code, runs
from .models import parse_model_uri
from .resources import resource, serialize_list, workspace_names

DATA_PLANE = "/mferp/managementfrontend"
DEPLOYMENT_HEADER = "azureml-model-deployment"
DRIVER = ("python", "-P", "-m", "mnist_deploy.local.scoring.batch")
STEP = "batchscoring"
OUTPUT = "score"
FILE, FOLDER = "UriFile", "UriFolder"  # types of inputs and outputs
MODEL = "azureml-model"  # input of the step; the SDK rejects this name for a user's input
MAX_RETRIES = 3  # Azure's default
MINI_BATCH_TIMEOUT = 30.0  # seconds; Azure's default
OVERRIDES = ("errorThreshold", "miniBatchSize", "outputFileName")  # also fields of a deployment
PASCAL_CASE = ("InputData", "OutputData", "JobInputType", "JobOutputType", "Uri", "Properties")

batch_job_api = Blueprint("batch_jobs", __name__)


class Properties(Struct, rename="camel"):
    experiment_name: str | None = None


class ComputeOverride(Struct, rename="camel"):
    """``params_override=[{"compute.instance_count": 5}]``; the SDK sends all or one of these."""

    target: str | None = None
    instance_count: int | None = None
    instance_type: str | None = None
    location: str | None = None
    properties: Any = None


class OutputDataset(Struct, rename="camel"):
    """A folder for the results: ``params_override=[{"output_dataset.path": "folder"}, …]``."""

    datastore_id: str | None = None
    path: str | None = None


class InvocationProperties(Struct, rename="camel"):
    input_data: dict[str, JobInputRequest] | None = None
    output_data: dict[str, JobOutputRequest] | None = None
    output_dataset: OutputDataset | None = None
    compute: ComputeOverride | None = None
    retry_settings: dict[str, Any] | None = None
    dataset: Any = None
    name: str | None = None
    description: str | None = None
    tags: Labels | None = None
    properties: Properties | None = None


class Invocation(Struct):
    properties: Document


@dataclass(frozen=True)
class OutputLocation:
    """The location of a job's results: the path of a folder of artifacts, and a file in it.

    Attributes
    ----------
    file : str
        The name of the file; empty if only the script writes files.
    is_file : bool
        Whether the invocation requested the file, not the folder.
    """

    folder: str
    file: str
    is_file: bool = False


@batch_job_api.post(f"{ENDPOINT}/jobs")
def invoke(endpoint: str, **_: str) -> Response:
    """Start a batch job with the deployment named in the header, or the default deployment."""
    sent = lower_names(body(Invocation).properties)
    requested = convert(sent, InvocationProperties)
    if requested.dataset:
        raise NotSupported("an invocation of a batch endpoint with dataset: a data set of SDK v1")
    if not state().has(JobEngine):
        raise NotSupported("batch jobs in a mocked workspace")
    name = request.headers.get(DEPLOYMENT_HEADER) or find_batch_endpoint(endpoint).default
    if not name:
        raise Invalid(
            "deployment",
            f"Batch endpoint {endpoint} has no default deployment: pass deployment_name=, or set "
            "endpoint.defaults.deployment_name.",
        )
    kept = find_batch_deployment(endpoint, name).settings
    settings = parse_settings(override_settings(kept, sent, requested))
    answer = jsonify(serialize_batch_job(start_job(endpoint, name, settings, requested)))
    answer.status_code = 201
    return answer


def lower_names(sent: Document, depth: int = 2) -> Document:
    """Convert names to camel case: Microsoft's examples of this call contain ``InputData``."""
    lowered = {}
    for name, value in sent.items():
        is_nested = depth > 0 and isinstance(value, dict)
        name = name[:1].lower() + name[1:] if name in PASCAL_CASE else name
        lowered[name] = lower_names(value, depth - 1) if is_nested else value
    return lowered


def override_settings(kept: Document, sent: Document, requested: InvocationProperties) -> Document:
    """Return the settings of a deployment with the overrides of an invocation."""
    settings = kept | {key: sent[key] for key in OVERRIDES if key in sent}
    if requested.retry_settings:
        settings["retrySettings"] = (kept.get("retrySettings") or {}) | requested.retry_settings
    compute = requested.compute or ComputeOverride()
    for option in ("instance_type", "location", "properties"):
        if getattr(compute, option):
            raise NotSupported(f"an invocation of a batch endpoint with compute.{option}")
    if compute.target:
        settings["compute"] = compute.target
    if compute.instance_count is not None:
        count = {"instanceCount": compute.instance_count}
        settings["resources"] = (kept.get("resources") or {}) | count
    return settings


def start_job(
    endpoint: str, deployment: str, settings: BatchSettings, requested: InvocationProperties
) -> Run:
    """Create a batch job with its one step, and queue it."""
    step = str(uuid.uuid4())
    inputs = find_inputs(requested.input_data or {})
    subscription, group, workspace = workspace_names()
    experiment_name = requested.properties.experiment_name if requested.properties else None
    with runs().store.transaction():
        output = find_output(requested, settings) or OutputLocation(
            f"azureml/{step}/{OUTPUT}", name_output_file(settings)
        )
        files = {OUTPUT: f"{output.folder}/{output.file}"} if output.is_file else {}
        common: dict[str, Any] = {
            "target": find_cluster(settings.compute).name,
            "warnings": tuple(list_warnings(settings, inputs)),
            "properties": {"endpoint": endpoint, "deployment": deployment},
            "other": {
                "workspace": {"subscription": subscription, "group": group, "workspace": workspace},
                "v2": {"output_files": files},
            },
        }
        experiment = runs().create_experiment(experiment_name or endpoint)
        tags = texts(requested.tags) | {"azureml.batchrun": "true"}
        run = runs().create(
            experiment,
            requested.name or f"batchjob-{uuid.uuid4()}",
            kind="batch",
            description=requested.description or "",
            tags=tags,
            **common,
        )
        job = make_job(settings, inputs, output)
        child = runs().create(experiment, step, run.id, kind="step", name=STEP, job=job, **common)
    state().part(JobEngine).submit(child)
    return runs().get(run.id)


def name_output_file(settings: BatchSettings) -> str:
    return "" if settings.output_action == SUMMARY_ONLY else settings.output_file_name


def list_output_uris(requested: InvocationProperties) -> list[tuple[str | None, str]]:
    """Return (URI, type) of each output of an invocation, in both of Azure's notations."""
    uris = [(each.uri, each.job_output_type) for each in (requested.output_data or {}).values()]
    if dataset := requested.output_dataset:
        uris.append(
            (f"{dataset.datastore_id or ''}/paths/{(dataset.path or '').strip('/')}", FOLDER)
        )
    return uris


def find_output(requested: InvocationProperties, settings: BatchSettings) -> OutputLocation | None:
    """Return the requested location of the results; None if the invocation has no output.

    Article "Create jobs and input data for batch endpoints": a model deployment has one output,
    with any name; a job fails if its output file exists.

    Raises
    ------
    Invalid
        If the invocation has several outputs, or a path outside the data store.
    Conflict
        If the output file exists.
    """
    uris = list_output_uris(requested)
    if not uris:
        return None
    if len(uris) > 1:
        raise Invalid(
            "outputs", f"{len(uris)} outputs were requested: expected one, for the scores."
        )
    [(uri, kind)] = uris
    if kind not in (FILE, FOLDER) or not uri:
        raise Invalid(
            "outputs",
            "Expected Output(type='uri_file' or 'uri_folder', path='azureml://datastores/"
            f"{DATASTORE}/paths/FOLDER/…').",
        )
    folder = re.sub("/+", "/", parse_model_uri(uri)).strip("/")
    file = name_output_file(settings)
    if kind == FILE:
        if not file:
            raise Invalid("outputs", "output_action summary_only writes no file: pass uri_folder.")
        folder, file = posixpath.split(folder)
    if not folder or (file and not FILE_NAME.fullmatch(file)):
        raise Invalid(
            "outputs", f"{uri!r} is not the path of a file in a folder of the data store."
        )
    path = check_path(posixpath.join(folder, file).rstrip("/"))
    if file and store().artifact(path):
        raise Conflict(
            "outputs",
            f"{path} exists in the data store already: pass another path or output_file_name.",
        )
    return OutputLocation(folder, file, is_file=kind == FILE)


def find_inputs(sent: Mapping[str, JobInputRequest]) -> dict[str, JobInput]:
    """Return the inputs of a job: files and folders of the data store.

    Raises
    ------
    Invalid
        If the invocation has no input, or the type of an input does not match its data.
    NotSupported
        For literal values and tables, which Azure's model deployments reject as well.
    """
    if not sent:
        raise Invalid("input", "The invocation has no input: pass input=Input(type=…, path=…).")
    inputs = {}
    for name, requested in sent.items():
        kind = requested.job_input_type
        if kind not in (FILE, FOLDER):
            raise NotSupported(
                f"the input {name} of a batch endpoint, of type {kind}; only uri_file and "
                "uri_folder"
            )
        if not name or "/" in name or name.startswith(".") or name == MODEL:
            raise Invalid(
                "input",
                f"{name[:60]!r} is not a valid name of an input. Expected a name without '/' that "
                f"does not begin with '.', and is not {MODEL}.",
            )
        inputs[name] = find_input(name, requested)
        if inputs[name].is_file != (kind == FILE):
            found = "file, pass uri_file" if inputs[name].is_file else "folder, pass uri_folder"
            raise Invalid("input", f"The input {name} is of type {kind}, but {requested.uri} is a "
                          f"{found}.")  # fmt: skip
    return inputs


def make_job(settings: BatchSettings, inputs: dict[str, JobInput], output: OutputLocation) -> Job:
    """Return the job that scores the inputs."""
    code, retry = settings.code_configuration, settings.retry_settings
    model = find_asset(Model, "models", settings.model.asset_id)
    timeout = retry.timeout.total_seconds() if retry.timeout else MINI_BATCH_TIMEOUT
    document = {
        "script": code.scoring_script if code else "",
        "workers": min(count_processes(settings), os.cpu_count() or 1),
        "mini_batch_size": settings.mini_batch_size,
        "error_threshold": settings.error_threshold,
        "max_retries": MAX_RETRIES if retry.max_retries is None else retry.max_retries,
        "timeout": timeout,
        "output_file": output.file,
        "logging_level": settings.logging_level,
    }
    paths = [f"${{{{inputs.{name}}}}}" for name in inputs]
    output_path = f"${{{{outputs.{OUTPUT}}}}}"
    environment = find_deployment_environment(settings.environment_id, code, model)
    variables = environment.variables | {
        name: value or "" for name, value in settings.environment_variables.items()
    }
    variables["AZUREML_BI_OUTPUT_PATH"] = output_path
    if model is not None:
        variables["AZUREML_MODEL_DIR"] = f"${{{{inputs.{MODEL}}}}}"
        inputs = inputs | {MODEL: make_model_input(model)}
    return Job(
        (*DRIVER, json.encode(document).decode(), output_path, *paths),
        code=find_code(code.code_id) if code else "",
        variables=variables,
        inputs=inputs,
        outputs={OUTPUT: output.folder},
        output_rules={OUTPUT: OutputRules(overwrites=False)},
    )


def make_model_input(model: Model) -> JobInput:
    """Return the folder with a model's file or folder, laid out as in an online deployment."""
    parents = [posixpath.dirname(path.rstrip("/")) for path in model.artifacts]
    return JobInput(model.artifacts, posixpath.commonpath(parents))


def count_processes(settings: BatchSettings) -> int:
    return (settings.resources.instance_count or 1) * settings.max_concurrency_per_instance


def list_warnings(settings: BatchSettings, inputs: Mapping[str, JobInput]) -> Iterator[str]:
    """Yield a warning for each option whose effect differs from Azure's."""
    processes, cores = count_processes(settings), os.cpu_count() or 1
    if processes > cores:
        yield (
            f"instance_count and max_concurrency_per_instance request {processes} processes; this "
            f"machine has {cores} cores, and {cores} processes score"
        )
    if settings.resources.instance_type:
        yield "resources.instance_type: the workers are processes of this machine"
    if settings.resources.properties:
        yield "resources.properties: the job runs on this machine, not on a cluster"
    if len(inputs) > 1:
        yield f"inputs: {len(inputs)} are scored; on Azure a model deployment accepts one"
    model = find_asset(Model, "models", settings.model.asset_id)
    code, environment_id = settings.code_configuration, settings.environment_id
    yield from differences(find_deployment_environment(environment_id, code, model).conda)


def serialize_batch_job(run: Run) -> Document:
    return resource(("jobs", run.id), {"status": run.status, "name": run.id}, run.created)


@batch_job_api.get(f"{DATA_PLANE}{ENDPOINT}/jobs")
def list_endpoint_jobs(endpoint: str, **_: str) -> Response:
    find_batch_endpoint(endpoint)
    return list_batch_jobs({"endpoint": endpoint})


@batch_job_api.get(f"{DATA_PLANE}{DEPLOYMENTS}/<deployment>/jobs")
def list_deployment_jobs(endpoint: str, deployment: str, **_: str) -> Response:
    """List the jobs of a deployment, or of all deployments if the SDK sends ``None``."""
    find_batch_endpoint(endpoint)
    names = {"endpoint": endpoint}
    return list_batch_jobs(names if deployment == "None" else names | {"deployment": deployment})


def list_batch_jobs(names: Mapping[str, str]) -> Response:
    found = [
        run
        for run in runs().select_runs()
        if run.kind == "batch" and names.items() <= run.properties.items()
    ]
    return jsonify(serialize_list(found, serialize_batch_job))
