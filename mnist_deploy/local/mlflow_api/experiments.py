"""Experiments: the routes by which MLflow creates, finds, tags, deletes and restores them."""

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
from .search import Fields, parse_filter, select_documents

CALL = f"{API}/experiments"
VIEWS = {"ACTIVE_ONLY": (False,), "DELETED_ONLY": (True,), "ALL": (False, True)}

experiment_api = Blueprint("experiments", __name__)


class ExperimentName(Struct):
    experiment_name: str


class ExperimentId(Struct):
    experiment_id: str


class ExperimentRequest(Struct):
    name: str
    tags: list[Entry] = []


class TagRequest(Entry, kw_only=True):
    experiment_id: str


class ExperimentSearch(Struct):
    filter: str | None = None
    order_by: list[str] = []
    max_results: PageSize = 1000
    page_token: str | None = None
    view_type: str = "ACTIVE_ONLY"


def find_experiment(experiment_id: str) -> Experiment:
    """The experiment with an id.

    MLflow sends the id 0 where no experiment was chosen: it stands for the experiment ``Default``,
    which is created if it is missing.
    """
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
    requested = body(ExperimentRequest)
    if not requested.name:
        raise Invalid("experiment", "name is empty: expected the name of the new experiment.")
    with runs().store.transaction():
        if runs().find_experiment(requested.name) is not None:
            raise Conflict(
                "experiment", f"Experiment {requested.name} exists already: choose another name."
            )
        created = runs().create_experiment(requested.name)
        tags: Tags = {tag.key: tag.value for tag in requested.tags}
        runs().change_experiment(created.id, lambda each: dataclasses.replace(each, tags=tags))
    return jsonify(experiment_id=created.id)


@experiment_api.get(f"{CALL}/get")
def get_experiment(**_: str) -> Response:
    return jsonify(
        experiment=serialize_experiment(find_experiment(query(ExperimentId).experiment_id))
    )


@experiment_api.get(f"{CALL}/get-by-name")
def get_experiment_by_name(**_: str) -> Response:
    name = query(ExperimentName).experiment_name
    found = runs().find_experiment(name)
    if found is None:
        raise NotFound("experiment", name)
    return jsonify(experiment=serialize_experiment(found))


@experiment_api.post(f"{CALL}/search")
def search_experiments(**_: str) -> Response:
    requested = body(ExperimentSearch)
    if requested.view_type not in VIEWS:
        raise Invalid(
            "view type", f"view_type is {requested.view_type!r}: expected {', '.join(VIEWS)}."
        )
    is_selected = parse_filter(requested.filter or "")
    archived = VIEWS[requested.view_type]
    documents = [
        serialize_experiment(each)
        for each in runs().experiments()
        if bool(each.archived) in archived
    ]
    found = select_documents(documents, searchable_fields, is_selected, requested.order_by)
    page, following = select_page(found, requested.max_results, requested.page_token)
    return jsonify(experiments=page, **following)


@experiment_api.post(f"{CALL}/delete")
def delete_experiment(**_: str) -> Response:
    """Archive an experiment, because MLflow can restore a deleted one."""
    set_archived(body(ExperimentId).experiment_id, now())
    return jsonify({})


@experiment_api.post(f"{CALL}/restore")
def restore_experiment(**_: str) -> Response:
    set_archived(body(ExperimentId).experiment_id, "")
    return jsonify({})


def set_archived(experiment_id: str, archived: str) -> None:
    runs().change_experiment(
        find_experiment(experiment_id).id,
        lambda experiment: dataclasses.replace(experiment, archived=archived),
    )


@experiment_api.post(f"{CALL}/set-experiment-tag")
def set_experiment_tag(**_: str) -> Response:
    requested = body(TagRequest)
    runs().change_experiment(
        find_experiment(requested.experiment_id).id,
        lambda experiment: dataclasses.replace(
            experiment, tags=experiment.tags | {requested.key: requested.value}
        ),
    )
    return jsonify({})
