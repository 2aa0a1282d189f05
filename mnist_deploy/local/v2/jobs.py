"""Command jobs: runs that azure-ai-ml submits."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from flask import Blueprint, Response, jsonify
from msgspec import Struct, field

from ..bodies import Document, Labels, body, texts
from ..core.faults import Conflict, Invalid, NotSupported
from ..core.job_engine import JobEngine
from ..core.records import Code, Compute, Environment
from ..core.runs import Job, Run, Runs
from ..rest import WORKSPACE, state, store
from .datastores import path_uri
from .job_data import JobInputRequest, JobOutputRequest, resolve_inputs, resolve_outputs
from .resources import resource, resource_id, serialize_list, workspace_names

JOBS = f"{WORKSPACE}/jobs"
ID_PREFIX = "azureml:"
LOCAL = "local"
SHELL = ("/bin/sh", "-c")
DEFAULT_EXPERIMENT = "Default"
DEFAULT_SHM_SIZE = "2g"  # the SDK sends it whenever another resource is set
JOB_TYPES = {  # REST name -> name in the SDK
    "Sweep": "sweep jobs",
    "Pipeline": "pipeline jobs",
    "AutoML": "AutoML jobs",
    "Spark": "Spark jobs",
    "Labeling": "labeling jobs",
    "FineTuning": "fine-tuning jobs",
}

job_api = Blueprint("jobs", __name__)


class Limits(Struct):
    timeout: timedelta | None = None


class JobResources(Struct, rename="camel"):
    instance_count: int | None = None
    instance_type: str | None = None
    locations: list[str] | None = None
    docker_args: str | None = None
    shm_size: str | None = None


class JobProperties(Struct, rename="camel"):
    job_type: str
    command: str | None = None
    code_id: str | None = None
    environment_id: str | None = None
    environment_variables: dict[str, str | None] | None = None
    inputs: dict[str, JobInputRequest] | None = None
    outputs: dict[str, JobOutputRequest] | None = None
    compute_id: str | None = None
    experiment_name: str | None = None
    display_name: str | None = None
    description: str | None = None
    tags: Labels | None = None
    properties: Labels | None = None
    limits: Limits | None = None
    resources: JobResources | None = None
    distribution: dict[str, Any] | None = None
    queue_settings: dict[str, Any] | None = None
    identity: dict[str, Any] | None = None
    services: dict[str, Any] | None = None
    component_id: str | None = None
    is_archived: bool | None = field(default=None)


class JobRequest(Struct):
    properties: JobProperties


def runs() -> Runs:
    return state().part(Runs)


@job_api.put(f"{JOBS}/<name>")
def put_job(name: str, **_: str) -> Response:
    """Submit a job under a new name."""
    sent, requested = body(Document), body(JobRequest).properties
    if requested.job_type != "Command":
        raise NotSupported(
            f"{JOB_TYPES.get(requested.job_type, requested.job_type)}, only command jobs"
        )
    if not state().has(JobEngine):
        raise NotSupported("jobs in a mocked workspace")
    if runs().find(name) is not None:
        raise Conflict("job", f"Job {name} exists already: submit the job under another name.")
    run = create_run(name, requested, sent["properties"])
    state().part(JobEngine).submit(run)
    answer = jsonify(serialize_job(runs().get(name)))
    answer.status_code = 201
    return answer


def create_run(name: str, requested: JobProperties, sent: Document) -> Run:
    """Create the run of a job without queueing it.

    Raises
    ------
    Invalid
        If the job has no command.
    NotFound
        If its code, environment, compute or data are missing.
    """
    if not requested.command:
        raise Invalid("job", "The job has no command: pass command=.")
    subscription, group, workspace = workspace_names()
    inputs, literals = resolve_inputs(requested.inputs or {})
    command = requested.command
    for key, value in literals.items():
        command = command.replace(f"${{{{inputs.{key}}}}}", value)
    environment = find_job_environment(requested.environment_id)
    variables = dict(environment.variables) if environment else {}
    variables |= {
        key: value or "" for key, value in (requested.environment_variables or {}).items()
    }
    timeout = requested.limits.timeout if requested.limits else None
    job = Job(
        (*SHELL, command),
        code=find_code(requested.code_id),
        variables=variables,
        inputs=inputs,
        outputs=resolve_outputs(name, requested.outputs or {}),
        max_seconds=timeout.total_seconds() if timeout else None,
    )
    return runs().create(
        runs().create_experiment(requested.experiment_name or DEFAULT_EXPERIMENT),
        name,
        kind="script",
        name=requested.display_name or name,
        description=requested.description or "",
        target=check_compute(requested),
        tags=dict(texts(requested.tags)),
        properties=texts(requested.properties),
        warnings=tuple(list_warnings(requested)),
        job=job,
        other={
            "v2": {"properties": sent},
            "workspace": {"subscription": subscription, "group": group, "workspace": workspace},
        },
    )


def find_code(code_id: str | None) -> str:
    if not code_id:
        return ""
    _, name, _, version = code_id.removeprefix(ID_PREFIX).rsplit("/", 3)
    return f"{name}:{store().get(Code, name, version).version}"


def find_job_environment(environment_id: str | None) -> Environment | None:
    """Return the environment with an id; None for an image or a registry's environment."""
    parts = (environment_id or "").removeprefix(ID_PREFIX).rsplit("/", 3)
    if len(parts) != 4 or "registries" in parts[0]:
        return None
    return store().get(Environment, parts[1], parts[3])


def check_compute(requested: JobProperties) -> str:
    """Return the name of the job's compute; ``serverless`` if the job has none."""
    name = (requested.compute_id or "").removeprefix(ID_PREFIX).rpartition("/")[2]
    if not name:
        return "serverless"
    if name.lower() == LOCAL:
        return LOCAL
    compute = store().get(Compute, name)
    if compute.kind != "AmlCompute":
        raise Invalid(
            "compute", f"{name} is a compute of type {compute.kind}: expected AmlCompute."
        )
    return name


def list_warnings(requested: JobProperties) -> Iterator[str]:
    """Yield a warning for each option whose effect differs from Azure's."""
    resources = requested.resources or JobResources()
    if (resources.instance_count or 1) > 1:
        yield (
            f"resources: {resources.instance_count} instances were requested; the job is one "
            "process of this machine"
        )
    for option in ("instance_type", "locations", "docker_args"):
        if getattr(resources, option):
            yield f"resources.{option}: the job is a process of this machine, not of a cluster"
    if resources.shm_size and resources.shm_size != DEFAULT_SHM_SIZE:
        yield "resources.shm_size: the job shares the memory of this machine"
    if requested.identity:
        yield "identity: the job has the token of the local workspace, and no token of Azure"
    if requested.services:
        yield f"services: {', '.join(requested.services)} are not started"
    if requested.distribution:
        yield "distribution: one process is started"
    if requested.queue_settings:
        yield "queue_settings: jobs start in the order of their submission"
    if requested.environment_id and find_job_environment(requested.environment_id) is None:
        yield "environment: it is not registered in this workspace; the job runs in this Python"


def serialize_job(run: Run) -> Document:
    """Return the job as sent by the client, with its status and outputs."""
    sent = run.other.get("v2", {}).get("properties", {})
    outputs = {
        name: {"jobOutputType": "uri_folder", **output, "uri": path_uri(run.job.outputs[name])}
        for name, output in (sent.get("outputs") or {}).items()
        if run.job is not None
    }
    if run.is_terminal:  # earlier, the SDK would search this output for incomplete logs
        outputs["default"] = {
            "jobOutputType": "uri_folder",
            "mode": "ReadWriteMount",
            "uri": path_uri(run.artifacts),
        }
    experiment = runs().get_experiment(run.experiment).name
    if run.kind == "batch":  # the outputs are those of its step
        sent, outputs = {"jobType": "Pipeline", "jobs": {}, "settings": {}, "inputs": {}}, {}
    studio = (state().studio_url or state().url).rstrip("/")
    own = {
        "jobType": "Command",
        "command": " ".join(run.job.command) if run.job else run.script or "-",
        "environmentId": resource_id("environments", "none", "versions", "1"),
        **sent,
        "status": run.status,
        "experimentName": experiment,
        "displayName": run.name or run.id,
        "description": run.description,
        "tags": {name: value or "" for name, value in run.tags.items()},
        "properties": run.properties,
        "outputs": outputs,
        "services": {
            "Tracking": {"jobServiceType": "Tracking", "endpoint": state().url},
            "Studio": {
                "jobServiceType": "Studio",
                "endpoint": f"{studio}/runs/{run.id}?wsid={scope()}",
            },
        },
    }
    return resource(("jobs", run.id), own, run.created, run.ended or run.started)


def scope() -> str:
    """The workspace in the URLs of Azure's studio; azure-ai-ml appends ``&tid=`` to them."""
    subscription, group, workspace = workspace_names()
    return f"/subscriptions/{subscription}/resourcegroups/{group}/workspaces/{workspace}"


@job_api.get(f"{JOBS}/<name>")
def get_job(name: str, **_: str) -> Response:
    return jsonify(serialize_job(runs().get(name)))


@job_api.get(JOBS)
def list_jobs(**_: str) -> Response:
    """List all runs, including runs of SDK v1, the newest first."""
    return jsonify(serialize_list(runs().select_runs(), serialize_job))


@job_api.post(f"{JOBS}/<name>/cancel")
def cancel_job(name: str, **_: str) -> Response:
    run = runs().get(name)
    if run.is_terminal:
        raise Conflict("job", f"Job {name} has ended already: {run.status}.")
    state().part(JobEngine).cancel(name)
    return Response(status=200)
