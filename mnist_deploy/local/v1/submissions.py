"""Submitted runs: run configurations of azureml-core become jobs of the job engine."""

from __future__ import annotations

import dataclasses
import io
import re
import zipfile
from collections.abc import Iterator
from typing import Any

import msgspec
from flask import Blueprint, Response, jsonify, request
from msgspec import Struct

from ..bodies import Document, Labels, body, query, texts
from ..core.faults import Invalid, NotFound, NotSupported
from ..core.job_engine import JobEngine
from ..core.records import Code, Compute
from ..core.runs import Job, Run
from ..rest import WORKSPACE, state, store
from .environments import EnvironmentDefinition
from .option_warnings import list_environment_warnings
from .run_history import runs, workspace_scope
from .run_inputs import DataInput, DataReference, resolve_inputs
from .run_outputs import DataOutput, RunOutputs, resolve_outputs
from .snapshots import SNAPSHOT_VERSION

EXECUTION = f"/execution/v1.0{WORKSPACE}/experiments/<experiment>"
LOCAL = "local"  # the target of a run on the client's machine
RUN_BASED_CLUSTER = "amlcompute"  # the target of a run for which Azure creates a cluster
INVOCATION = "azureml-setup/Invocation.sh"
EMPTY_PROGRAM = (
    "#!/bin/sh\n# The local workspace executes this run itself, in a folder of its own.\nexit 0\n"
)
SHELL = ("/bin/sh", "-c")

submission_api = Blueprint("submissions", __name__)


class Mpi(Struct, rename="camel"):
    process_count_per_node: int | None = None


class RunConfiguration(Struct, rename="camel"):
    """The interpreted fields of a run configuration; the others are stored unchanged."""

    script: str | None = None
    command: str | list[str] | None = None
    arguments: list[Any] | None = None
    target: str | None = None
    framework: str | None = None
    communicator: str | None = None
    max_run_duration_seconds: float | None = None
    node_count: int | None = None
    priority: int | None = None
    environment: EnvironmentDefinition | None = None
    environment_variables: Labels | None = None
    data: dict[str, DataInput] | None = None
    data_references: dict[str, DataReference] | None = None
    output_data: dict[str, DataOutput] | None = None
    mpi: Mpi | None = None
    datacaches: list[Any] | None = None
    application_endpoints: dict[str, Any] | None = None


class Submission(Struct, rename="pascal"):
    configuration: RunConfiguration
    snapshot_id: str | None = None
    parent_run_id: str | None = None


class RunQuery(Struct, rename="camel"):
    run_id: str


@submission_api.post(f"{EXECUTION}/snapshotrun")
def submit_run(experiment: str, **_: str) -> Response:
    """Queue a run of a snapshot that was uploaded before."""
    requested = body(Submission)
    if not requested.snapshot_id:
        raise Invalid(
            "run", "The run has no snapshot: expected run_config.history.snapshot_project=True."
        )
    if store().find(Code, requested.snapshot_id, SNAPSHOT_VERSION) is None:
        raise NotFound("snapshot", requested.snapshot_id)
    run = create_run(experiment, requested, body(Document))
    state().part(JobEngine).submit(run)
    return jsonify(runId=run.id)


@submission_api.post(f"{EXECUTION}/localrun")
def submit_local_run(experiment: str, **_: str) -> Response:
    """Create a run of the target ``local``, which starts when the client sends its snapshot id.

    The SDK expects a program that executes the run on the client's machine. Here the job engine
    executes the run, and the program does nothing.
    """
    sent = request.files.getlist("files")
    definition = next((file for file in sent if file.filename == "definition.json"), None)
    if definition is None:
        raise Invalid("body", "The request has no file definition.json.")
    content = definition.read()
    try:
        requested = msgspec.json.decode(content, type=Submission)
    except (msgspec.MsgspecError, UnicodeError) as error:
        raise Invalid("body", f"definition.json is not valid for this call: {error}") from error
    create_run(experiment, requested, msgspec.json.decode(content))
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as program:
        program.writestr(INVOCATION, EMPTY_PROGRAM)
    return Response(archive.getvalue(), mimetype="application/zip")


@submission_api.post(f"{EXECUTION}/<any(startrun, prepare, localprepare, snapshotprepare):call>")
def reject_other_submissions(call: str, **_: str) -> Response:
    raise NotSupported(f"{call}: only runs of snapshots are executed, and nothing is prepared")


def create_run(experiment: str, requested: Submission, sent: Document) -> Run:
    """Create the run of a submission, not yet queued.

    Raises
    ------
    NotFound
        If its compute target, a data set or a data store is missing.
    NotSupported
        If an option is set that would change the result of the run.
    """
    if not state().has(JobEngine):
        raise NotSupported("submitted runs in a mocked workspace")
    configuration, run_id = requested.configuration, query(RunQuery).run_id
    reject_unsupported_options(configuration)
    check_target(configuration.target or LOCAL)
    outputs = resolve_outputs(run_id, configuration.output_data or {})
    job = build_job(configuration, outputs)
    if requested.snapshot_id:
        job = dataclasses.replace(job, code=f"{requested.snapshot_id}:{SNAPSHOT_VERSION}")
    lineage = [
        {
            "identifier": {"savedId": each.dataset_id},
            "consumptionType": "RunInput",
            "inputDetails": {
                "inputName": name,
                "mechanism": (each.mechanism or "direct").capitalize(),
            },
        }
        for name, each in (configuration.data or {}).items()
        if each.dataset_id
    ]
    return runs().create(
        runs().create_experiment(experiment),
        run_id,
        requested.parent_run_id or "",
        kind="script",
        script=configuration.script or "",
        target=configuration.target or LOCAL,
        properties={"_azureml.ComputeTargetType": configuration.target or LOCAL},
        warnings=(*list_warnings(configuration), *outputs.warnings),
        job=job,
        other={
            "workspace": workspace_scope(),
            "v1": {"runDefinition": sent.get("Configuration"), "inputDatasets": lineage},
        },
    )


def reject_unsupported_options(configuration: RunConfiguration) -> None:
    if (configuration.framework or "Python").lower() != "python":
        raise NotSupported(f"runs with the framework {configuration.framework}, only Python")
    if configuration.datacaches:
        raise NotSupported("data caches")


def check_target(target: str) -> None:
    if target in (LOCAL, RUN_BASED_CLUSTER):
        return
    compute = store().get(Compute, target)
    if compute.kind != "AmlCompute":
        raise Invalid(
            "compute target",
            f"{target} is a compute of type {compute.kind}: runs need an AmlCompute, or 'local'.",
        )


def list_warnings(configuration: RunConfiguration) -> Iterator[str]:
    """Warnings for the options that have another effect here than on Azure."""
    nodes = configuration.node_count or 1
    if nodes > 1:
        yield f"node_count: {nodes} nodes were requested; the run is one process of this machine"
    processes = (configuration.mpi or Mpi()).process_count_per_node or 1
    if (configuration.communicator or "None") != "None" and processes * nodes > 1:
        yield (
            f"distributed_job_config: {configuration.communicator} is not started; the run is one "
            "process"
        )
    if configuration.priority is not None:
        yield "priority: runs start in the order of their submission"
    if configuration.application_endpoints:
        yield "application_endpoints: no endpoint is opened"
    yield from list_environment_warnings(configuration.environment or EnvironmentDefinition())


def build_job(configuration: RunConfiguration, outputs: RunOutputs) -> Job:
    """The job of a configuration, with placeholders for its data."""
    inputs = resolve_inputs(configuration.data or {}, configuration.data_references or {})
    environment = configuration.environment or EnvironmentDefinition()
    variables = texts(environment.environment_variables) | texts(
        configuration.environment_variables
    )

    def fill(text: str) -> str:
        return outputs.fill(inputs.fill(text))

    arguments = [fill(str(each)) for each in configuration.arguments or []]
    return Job(
        tuple(build_command(configuration, arguments, fill)),
        variables=inputs.variables | outputs.variables | {n: fill(v) for n, v in variables.items()},
        inputs=inputs.job_inputs,
        outputs=outputs.paths,
        output_rules=outputs.rules,
        last_step=outputs.last_step,
        max_seconds=configuration.max_run_duration_seconds,
    )


def build_command(configuration: RunConfiguration, arguments: list[str], fill: Any) -> list[str]:
    command = configuration.command
    if command:
        words = [command] if isinstance(command, str) else command
        return [*SHELL, fill(" ".join([*words, *arguments]))]
    if not configuration.script:
        raise Invalid("run", "The run has neither a script nor a command: pass one of them.")
    if re.search(r"(^|/)\.\.(/|$)", configuration.script):
        raise Invalid(
            "script",
            f"{configuration.script!r} is not inside the source directory: pass a path below it.",
        )
    return ["python", configuration.script, *arguments]
