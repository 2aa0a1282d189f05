"""Experiments, as MLflow creates, finds, tags, deletes and restores them."""

from __future__ import annotations

import dataclasses

from flask import Blueprint, Response, jsonify
from msgspec import Struct

from ..bodies import Document, body, query
from ..core.faults import Conflict, Invalid, NotFound
from ..core.records import now
from ..core.runs import Experiment, Tags
from .fields import (
    API,
    DEFAULT_EXPERIMENT,
    Entry,
    PageSize,
    entries,
    milliseconds,
    runs,
    select_page,
)
from .search import Fields, parse_filter, sort_fields

CALL = f"{API}/experiments"
VIEWS = {"ACTIVE_ONLY": (False,), "DELETED_ONLY": (True,), "ALL": (False, True)}

experiment_api = Blueprint("experiments", __name__)


class Name(Struct):
    experiment_name: str


class Id(Struct):
    experiment_id: str


class ExperimentRequest(Struct):
    name: str
    tags: list[Entry] = []


class TagRequest(Entry, kw_only=True):
    experiment_id: str


class Search(Struct):
    filter: str | None = None
    order_by: list[str] = []
    max_results: PageSize = 1000
    page_token: str | None = None
    view_type: str = "ACTIVE_ONLY"


def find_experiment(experiment_id: str) -> Experiment:
    """The experiment of an id; MLflow's id of the default experiment creates it."""
    if experiment_id == DEFAULT_EXPERIMENT[0]:
        return runs().create_experiment(DEFAULT_EXPERIMENT[1])
    return runs().get_experiment(experiment_id)


def serialize_experiment(experiment: Experiment) -> Document:
    return {
        "experiment_id": experiment.id,
        "name": experiment.name,
        "artifact_location": f"mlflow-artifacts:/{experiment.id}",
        "lifecycle_stage": "deleted" if experiment.archived else "active",
        "creation_time": milliseconds(experiment.created),
        "last_update_time": milliseconds(experiment.archived or experiment.created),
        "tags": entries(experiment.tags),
    }


def searchable_fields(experiment: Document) -> Fields:
    tags = {tag["key"]: tag["value"] for tag in experiment["tags"]}
    return {"attributes": experiment, "tags": tags, "metrics": {}, "params": {}}


@experiment_api.post(f"{CALL}/create")
def create_experiment(**_: str) -> Response:
    asked = body(ExperimentRequest)
    if not asked.name:
        raise Invalid("experiment", "The experiment has no name.")
    with runs().store.transaction():
        if runs().find_experiment(asked.name) is not None:
            raise Conflict("experiment", f"Experiment {asked.name} exists already.")
        created = runs().create_experiment(asked.name)
        tags: Tags = {tag.key: tag.value for tag in asked.tags}
        runs().change_experiment(created.id, lambda each: dataclasses.replace(each, tags=tags))
    return jsonify(experiment_id=created.id)


@experiment_api.get(f"{CALL}/get")
def get_experiment(**_: str) -> Response:
    return jsonify(experiment=serialize_experiment(find_experiment(query(Id).experiment_id)))


@experiment_api.get(f"{CALL}/get-by-name")
def get_experiment_by_name(**_: str) -> Response:
    name = query(Name).experiment_name
    found = runs().find_experiment(name)
    if found is None:
        raise NotFound("experiment", name)
    return jsonify(experiment=serialize_experiment(found))


@experiment_api.post(f"{CALL}/search")
def search_experiments(**_: str) -> Response:
    asked = body(Search)
    if asked.view_type not in VIEWS:
        raise Invalid("view type", f"{asked.view_type!r} is none of {', '.join(VIEWS)}.")
    is_selected = parse_filter(asked.filter or "")
    wanted = VIEWS[asked.view_type]
    documents = [
        serialize_experiment(each) for each in runs().experiments() if bool(each.archived) in wanted
    ]
    found = [(searchable_fields(each), each) for each in documents]
    found = [pair for pair in found if is_selected(pair[0])]
    sort_fields(found, asked.order_by)
    page, following = select_page([each for _, each in found], asked.max_results, asked.page_token)
    return jsonify(experiments=page, **following)


@experiment_api.post(f"{CALL}/delete")
def delete_experiment(**_: str) -> Response:
    """Archive an experiment; MLflow can restore what it has deleted."""
    set_archived(body(Id).experiment_id, now())
    return jsonify({})


@experiment_api.post(f"{CALL}/restore")
def restore_experiment(**_: str) -> Response:
    set_archived(body(Id).experiment_id, "")
    return jsonify({})


def set_archived(experiment_id: str, archived: str) -> None:
    runs().change_experiment(
        find_experiment(experiment_id).id,
        lambda experiment: dataclasses.replace(experiment, archived=archived),
    )


@experiment_api.post(f"{CALL}/set-experiment-tag")
def set_experiment_tag(**_: str) -> Response:
    asked = body(TagRequest)
    runs().change_experiment(
        find_experiment(asked.experiment_id).id,
        lambda experiment: dataclasses.replace(
            experiment, tags=experiment.tags | {asked.key: asked.value}
        ),
    )
    return jsonify({})
