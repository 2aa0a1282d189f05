"""Run history: experiments, and the fields of every response about a run."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any

from flask import Blueprint, Response, jsonify, request
from msgspec import UNSET, Meta, Struct, UnsetType

from ..bodies import Document, body, convert, query
from ..core.faults import Invalid, NotFound
from ..core.records import now
from ..core.run_filter import parse_filter
from ..core.runs import Experiment, Run, Runs, Tags
from ..rest import WORKSPACE, state
from .models import CREATOR

HISTORY = f"/history/v1.0{WORKSPACE}"
EXPERIMENTS = f"{HISTORY}/experiments"
EXPERIMENT_IDS = f"{HISTORY}/experimentids"
MAX_PAGE = 500  # records in one answer
RUN_TYPES = {"script": "azureml.scriptrun"}

experiment_api = Blueprint("experiments", __name__)


def runs() -> Runs:
    return state().part(Runs)


def workspace_scope() -> dict[str, str]:
    """The subscription, resource group and workspace of the request's URL.

    The names are stored with a run, because its process must use the same names.
    """
    view = request.view_args or {}
    return {part: view[part] for part in ("subscription", "group", "workspace")}


class ExperimentChanges(Struct, rename="camel"):
    """The fields of an experiment that can be changed."""

    name: str | None = None
    description: str | UnsetType | None = UNSET
    archive: bool | None = None
    tags: Tags | None = None


class TagNames(Struct):
    tags: list[str]


class HistoryQuery(Struct, rename="camel"):
    """A query of experiments or runs, in the body of a request or in its URL."""

    filter: str | None = None
    orderby: str | None = None
    top: Annotated[int, Meta(ge=0)] | None = None
    continuation_token: str | None = None
    view_type: str | None = None


def read_query() -> HistoryQuery:
    """The query of the request; parameters of the URL override fields of the body."""
    found = body(Document) if request.get_data() else {}
    aliases = {"$" + name: name for name in ("filter", "orderby", "top", "continuationToken")}
    sent = query(Document)
    found |= {aliases.get(name, name): value for name, value in sent.items()}
    if isinstance(found.get("top"), str):
        found["top"] = int(found["top"]) if found["top"].isdecimal() else -1
    if isinstance(found.get("orderby"), list):
        found["orderby"] = ",".join(map(str, found["orderby"]))
    return convert(found, HistoryQuery)


def select(records: list[Document], requested: HistoryQuery) -> Document:
    """The requested page of `records`, in the order of the query."""
    if requested.filter:
        is_selected = parse_filter(requested.filter)
        records = [each for each in records if is_selected(each)]
    for order in reversed((requested.orderby or "").split(",")):
        field, _, direction = order.strip().partition(" ")
        if field:
            key = field[:1].lower() + field[1:]
            records.sort(key=lambda each: str(each.get(key) or ""), reverse=direction == "desc")
    start = requested.continuation_token or "0"
    if not start.isdecimal():
        raise Invalid(
            "query",
            f"continuationToken is {start!r}: expected the token of the previous response.",
        )
    end = int(start) + min(requested.top or MAX_PAGE, MAX_PAGE)
    page: Document = {"value": records[int(start) : end]}
    if end < len(records):
        page["continuationToken"] = str(end)
        page["nextLink"] = None
    return page


def serialize_experiment(experiment: Experiment) -> Document:
    return {
        "experimentId": experiment.id,
        "name": experiment.name,
        "description": experiment.description,
        "createdUtc": experiment.created,
        "archivedTime": experiment.archived or None,
        "tags": experiment.tags,
        "artifactLocation": f"mlflow-artifacts:/{experiment.id}",
    }


def serialize_run(run: Run) -> Document:
    """A run in the schema of run history, without its empty fields."""
    document: Document = {
        "runId": run.id,
        "runNumber": run.number,
        "rootRunId": run.root,
        "rootRunUuid": run.root,
        "runUuid": run.id,
        "parentRunId": run.parent or None,
        "experimentId": run.experiment,
        "status": run.status,
        "createdUtc": run.created,
        "startTimeUtc": run.started or None,
        "endTimeUtc": run.ended or None,
        "lastModifiedUtc": run.ended or run.started or run.created,
        "name": run.name or None,
        "displayName": run.other.get("v1", {}).get("displayName") or run.name or run.id,
        "description": run.description or None,
        "dataContainerId": run.container,
        "runType": run.other.get("v1", {}).get("runType") or RUN_TYPES.get(run.kind),
        "runTypeV2": run.other.get("v1", {}).get("runTypeV2"),
        "target": run.target or None,
        "scriptName": run.script or None,
        "tags": run.tags,
        "properties": run.properties,
        "createdBy": CREATOR,
        "userId": CREATOR["userObjectId"],
        "hidden": False,
        "error": run.error and {"error": run.error},
        "warnings": serialize_warnings(run),
    }
    return {name: value for name, value in document.items() if value is not None}


def serialize_warnings(run: Run) -> list[Document]:
    return [{"source": "local workspace", "message": message} for message in run.warnings]


def find_experiment(name: str) -> Experiment:
    """The active experiment with a name.

    Raises
    ------
    NotFound
        If there is no such experiment.
    """
    found = runs().find_experiment(name)
    if found is None:
        raise NotFound("experiment", name)
    return found


@experiment_api.get(f"{EXPERIMENTS}/<experiment>")
def get_experiment(experiment: str, **_: str) -> Response:
    return jsonify(serialize_experiment(find_experiment(experiment)))


@experiment_api.post(f"{EXPERIMENTS}/<experiment>")
def create_experiment(experiment: str, **_: str) -> Response:
    return jsonify(serialize_experiment(runs().create_experiment(experiment)))


@experiment_api.get(f"{EXPERIMENT_IDS}/<experiment_id>")
def get_experiment_by_id(experiment_id: str, **_: str) -> Response:
    return jsonify(serialize_experiment(runs().get_experiment(experiment_id)))


@experiment_api.patch(f"{EXPERIMENT_IDS}/<experiment_id>")
def update_experiment(experiment_id: str, **_: str) -> Response:
    requested = body(ExperimentChanges)

    def change(experiment: Experiment) -> Experiment:
        changed: dict[str, Any] = {"tags": experiment.tags | (requested.tags or {})}
        if requested.archive is not None:
            changed["archived"] = (experiment.archived or now()) if requested.archive else ""
        if isinstance(requested.description, str):
            changed["description"] = requested.description
        return dataclasses.replace(experiment, **changed)

    return jsonify(serialize_experiment(runs().change_experiment(experiment_id, change)))


@experiment_api.delete(f"{EXPERIMENT_IDS}/<experiment_id>")
def delete_experiment(experiment_id: str, **_: str) -> Response:
    runs().delete_experiment(experiment_id)
    return Response(status=200)


@experiment_api.post(f"{EXPERIMENT_IDS}/<experiment_id>/tags:delete")
def delete_experiment_tags(experiment_id: str, **_: str) -> Response:
    names = body(TagNames).tags
    runs().change_experiment(
        experiment_id,
        lambda experiment: dataclasses.replace(
            experiment, tags={tag: v for tag, v in experiment.tags.items() if tag not in names}
        ),
    )
    return jsonify(errors={})


@experiment_api.post(f"{HISTORY}/experiments:query")
def query_experiments(**_: str) -> Response:
    requested = read_query()
    archived = {"ArchivedOnly": (True,), "All": (False, True)}.get(
        requested.view_type or "", (False,)
    )
    found = [each for each in runs().experiments() if bool(each.archived) in archived]
    return jsonify(select([serialize_experiment(each) for each in found], requested))
