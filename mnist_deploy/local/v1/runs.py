"""Runs: the routes by which azureml-core and azureml-mlflow create, change and query them."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

from flask import Blueprint, Response, jsonify, request
from msgspec import Struct, field

from ..bodies import Labels, body, texts
from ..core.faults import Conflict, Invalid, NotFound
from ..core.job_engine import JobEngine
from ..core.runs import LOG_FILE, OUTPUT_ASSET, TERMINAL, Experiment, Run, Tags
from ..rest import state, store
from .artifacts import content_uri
from .errors import serialize_fault
from .run_history import (
    EXPERIMENT_IDS,
    EXPERIMENTS,
    HISTORY,
    TagNames,
    find_experiment,
    read_query,
    runs,
    select,
    serialize_run,
    serialize_warnings,
    workspace_scope,
)

RUN = f"{EXPERIMENTS}/<experiment>/runs/<run_id>"
RUN_BY_EXPERIMENT_ID = f"{EXPERIMENT_IDS}/<experiment_id>/runs/<run_id>"
TOKEN_LIFETIME = 7 * 24 * 3600  # seconds
EVENT = "Microsoft.MachineLearning.Run."
STATUS_AFTER_EVENT = {
    "Start": "Running",
    "Queued": "Queued",
    "Completed": "Completed",
    "Failed": "Failed",
    "Canceled": "Canceled",
    "CancelRequested": "Canceled",
}
NO_EFFECT = ("Heartbeat", "QueueingInfo")

run_api = Blueprint("runs", __name__)


class RunChanges(Struct, rename="camel"):
    """A run to create, or the changed fields of a run."""

    run_id: str | None = None
    parent_run_id: str | None = None
    status: str | None = None
    name: str | None = None
    display_name: str | None = None
    description: str | None = None
    script_name: str | None = None
    target: str | None = None
    run_type: str | None = None
    run_type_v2: dict[str, Any] | None = field(default=None, name="runTypeV2")
    tags: Labels | None = None
    properties: Labels | None = None
    input_datasets: list[dict[str, Any]] | None = None
    output_datasets: list[dict[str, Any]] | None = None


class RunBatch(Struct):
    runs: list[RunChanges]


class Event(Struct):
    name: str
    data: dict[str, Any] = {}


class Events(Struct):
    events: list[Event]


def experiment_of_request(experiment: str = "", experiment_id: str = "", **_: str) -> Experiment:
    if experiment_id:
        return runs().get_experiment(experiment_id)
    return find_experiment(experiment)


def find_run(run_id: str, **names: str) -> Run:
    """The run of a request, which names its experiment by name or by id.

    Raises
    ------
    NotFound
        If there is no such run, or the run belongs to another experiment.
    """
    run = runs().get(run_id)
    if names.get("experiment") or names.get("experiment_id"):
        if runs().get_experiment(run.experiment).name == names.get("experiment"):
            return run
        if run.experiment != experiment_of_request(**names).id:
            raise NotFound("run", run_id)
    return run


def serialize_tags(labels: Labels | None) -> Tags:
    """Tags with their values as text; the value of a tag may be null."""
    return {name: None if value is None else str(value) for name, value in (labels or {}).items()}


def apply_changes(run: Run, requested: RunChanges) -> Run:
    properties = texts({k: v for k, v in (requested.properties or {}).items() if v is not None})
    own = {
        "displayName": requested.display_name,
        "runType": requested.run_type,
        "runTypeV2": requested.run_type_v2,
        "inputDatasets": requested.input_datasets,
        "outputDatasets": requested.output_datasets,
    }
    sent: dict[str, Any] = {name: value for name, value in own.items() if value is not None}
    for lineage in {"inputDatasets", "outputDatasets"} & sent.keys():
        known = run.other.get("v1", {}).get(lineage, [])
        sent[lineage] = [*known, *(each for each in sent[lineage] if each not in known)]
    return dataclasses.replace(
        run,
        name=requested.name or run.name,
        description=run.description if requested.description is None else requested.description,
        script=requested.script_name or run.script,
        target=requested.target or run.target,
        tags=run.tags | serialize_tags(requested.tags),
        properties=properties | run.properties,
        other=run.other | {"v1": run.other.get("v1", {}) | sent},
    )


def create_or_update(experiment: Experiment, run_id: str, requested: RunChanges) -> Run:
    with store().transaction():
        if runs().find(run_id) is None:
            scope = workspace_scope()
            runs().create(
                experiment, run_id, requested.parent_run_id or "", other={"workspace": scope}
            )
        run = runs().change(run_id, lambda run: apply_changes(run, requested))
        if requested.status and requested.status != run.status and run.kind == "interactive":
            run = runs().set_status(run_id, requested.status)
    return run


@run_api.patch(RUN)
@run_api.patch(RUN_BY_EXPERIMENT_ID)
def patch_run(run_id: str, **names: str) -> Response:
    requested = body(RunChanges)
    run = create_or_update(experiment_of_request(**names), run_id, requested)
    if run.status == "NotStarted" and run.job is not None:  # a local run whose code was uploaded
        run = start_with_snapshot(run)
    return jsonify(serialize_run(run))


def start_with_snapshot(run: Run) -> Run:
    """Queue a run that was submitted before its snapshot.

    Raises
    ------
    Conflict
        If the run has no snapshot, and therefore no code.
    """
    snapshot = run.properties.get("ContentSnapshotId")
    assert run.job is not None
    if not snapshot:
        raise Conflict(
            "run",
            f"Run {run.id} has no snapshot: expected run_config.history.snapshot_project=True.",
        )
    job = dataclasses.replace(run.job, code=f"{snapshot}:1")
    run = runs().change(run.id, lambda run: dataclasses.replace(run, job=job))
    state().part(JobEngine).submit(run)
    return runs().get(run.id)


@run_api.patch(f"{EXPERIMENTS}/<experiment>/batch/runs")
def patch_runs(experiment: str, **_: str) -> Response:
    parent, changed, errors = find_experiment(experiment), {}, {}
    for requested in body(RunBatch).runs:
        if not requested.run_id:
            raise Invalid("run", "A run of the batch has no runId: expected one in each run.")
        try:
            run = create_or_update(parent, requested.run_id, requested)
        except (Conflict, Invalid, NotFound) as fault:
            errors[requested.run_id] = {"error": serialize_fault(fault)}
        else:
            changed[run.id] = serialize_run(run)
    return jsonify(runs=changed, errors=errors)


@run_api.get(RUN)
@run_api.get(RUN_BY_EXPERIMENT_ID)
@run_api.get(f"{HISTORY}/runs/<run_id>")
def get_run(run_id: str, **names: str) -> Response:
    run = find_run(run_id, **names)
    if run.is_terminal:
        reported().add(run.id)
    return jsonify(serialize_run(run))


class ReportedRuns(set[str]):
    """The ids of the runs whose details, or whose final status, a client has requested."""


def reported() -> ReportedRuns:
    return state().part(ReportedRuns)


@run_api.get(f"{RUN}/details")
@run_api.get(f"{HISTORY}/runs/<run_id>/details")
def get_details(run_id: str, **names: str) -> Response:
    """Status, error and log files of a run.

    ``wait_for_completion(show_output=True)`` prints the log only if the first status that it gets
    is not terminal. The first response about a run that has ended is therefore ``Finalizing``.
    """
    run = find_run(run_id, **names)
    is_first, status = run.id not in reported(), run.status
    reported().add(run.id)
    if is_first and run.kind in ("script", "batch") and run.is_terminal:
        status = "Finalizing"
    answer = serialize_run(run) | {
        "status": status,
        "inputDatasets": run.other.get("v1", {}).get("inputDatasets", []),
        "outputDatasets": run.other.get("v1", {}).get("outputDatasets", []),
        "runDefinition": run.other.get("v1", {}).get("runDefinition", {}),
        "logFiles": log_files(run),
        "warnings": serialize_warnings(run),
    }
    return jsonify(answer)


def log_files(run: Run) -> dict[str, str]:
    """The signed URL of a run's log; of a batch job, the log of its step."""
    source = runs().children(run.id)[0] if run.kind == "batch" else run
    path = f"{source.artifacts}/{LOG_FILE}"
    return {LOG_FILE: content_uri(path, "read")} if store().artifact(path) else {}


class RunDataRequest(Struct, rename="camel"):
    run_id: str


@run_api.post(f"{HISTORY}/rundata")
def get_run_data(**_: str) -> Response:
    """A run with its definition, for azure-ai-ml."""
    run = runs().get(body(RunDataRequest).run_id)
    outputs = {
        name: {"assetId": OUTPUT_ASSET.format(run=run.id, output=name), "type": "uri_folder"}
        for name in (run.job.outputs if run.job else {})
    }
    return jsonify(
        runMetadata=serialize_run(run) | {"outputs": outputs, "inputs": {}},
        runDefinition=run.other.get("v1", {}).get("runDefinition", {}),
        jobSpecification={},
    )


@run_api.get(f"{RUN}/children")
@run_api.get(f"{HISTORY}/runs/<run_id>/children")
def get_children(run_id: str, **names: str) -> Response:
    found = runs().children(find_run(run_id, **names).id)
    return jsonify(select([serialize_run(run) for run in found], read_query()))


@run_api.post(f"{EXPERIMENTS}/<experiment>/runs:query")
def query_runs(experiment: str, **_: str) -> Response:
    found = runs().select_runs(find_experiment(experiment).id)
    return jsonify(select([serialize_run(run) for run in found], read_query()))


@run_api.get(f"{HISTORY}/computes/<compute>/runs")
def query_runs_of_compute(compute: str, **_: str) -> Response:
    found = [serialize_run(run) for run in runs().select_runs() if run.target == compute]
    return jsonify(select(found, read_query()))


@run_api.delete(f"{RUN}/tags")
def delete_tags(run_id: str, **names: str) -> Response:
    unwanted = body(list[str]) if request.get_data().lstrip()[:1] == b"[" else body(TagNames).tags
    find_run(run_id, **names)
    runs().change(
        run_id,
        lambda run: dataclasses.replace(
            run, tags={tag: value for tag, value in run.tags.items() if tag not in unwanted}
        ),
    )
    return jsonify(errors={})


@run_api.get(f"{RUN}/token")
@run_api.get(f"{RUN_BY_EXPERIMENT_ID}/token")
def get_token(run_id: str, **names: str) -> Response:
    find_run(run_id, **names)
    expiry = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + TOKEN_LIFETIME))
    return jsonify(token=state().token, expiryTimeUtc=expiry)


@run_api.post(f"{RUN}/events")
def post_event(run_id: str, **names: str) -> Response:
    find_run(run_id, **names)
    apply_event(run_id, body(Event))
    return Response(status=200)


@run_api.post(f"{EXPERIMENTS}/<experiment>/batch/events")
def post_events(experiment: str, **_: str) -> Response:
    find_experiment(experiment)
    for event in body(Events).events:
        apply_event(str(event.data.get("RunId")), event)
    return jsonify(errors=[])


def apply_event(run_id: str, event: Event) -> None:
    """Set the status of a run from an event of its script or of its client.

    A run of the job engine ends with its process: an event can cancel it, or record an error.
    """
    name, run = event.name.removeprefix(EVENT), runs().get(run_id)
    if name == "Error":
        record_error(run, event.data.get("ErrorResponse"))
    elif name == "Warning":
        message = str(event.data.get("Message", ""))
        runs().change(
            run.id, lambda run: dataclasses.replace(run, warnings=(*run.warnings, message))
        )
    elif name in NO_EFFECT:
        return
    elif name not in STATUS_AFTER_EVENT:
        known = ", ".join([*STATUS_AFTER_EVENT, "Error", "Warning", *NO_EFFECT])
        raise Invalid("event", f"{event.name!r} is not an event of a run. Expected one of {known}.")
    elif run.kind == "interactive":
        runs().set_status(run.id, STATUS_AFTER_EVENT[name])
    elif STATUS_AFTER_EVENT[name] == "Canceled":
        state().part(JobEngine).cancel(run.id)
    elif name == "Failed" and run.error is None:
        record_error(run, None)


def record_error(run: Run, response: Any) -> None:
    sent = response.get("error") if isinstance(response, dict) else None
    sent = sent if isinstance(sent, dict) else {}
    error = {
        "code": str(sent.get("code") or "UserError"),
        "message": str(sent.get("message") or "The script reported that the run failed."),
    }
    if run.status not in TERMINAL:
        runs().change(run.id, lambda run: dataclasses.replace(run, error=error))
