"""The listings of experiments and runs for the page and the command ``show``, as plain JSON."""

from __future__ import annotations

import itertools
import logging
from typing import Any

from ..core.endpoints import Endpoints
from ..core.records import Model
from ..core.runs import Run, Runs
from .lineage import group_models_by_run, list_inputs, list_literals, list_model_users
from .metric_listing import MetricListing
from .run_files import find_executed_run, find_log, list_run_files

MAX_RUNS = 100  # in one response
MAX_CHILDREN = 100
MAX_FILES = 500
MAX_TEXT = 20_000  # characters of an error, a description, a warning
MAX_LABEL = 2000  # characters of a tag, a property, a parameter
MAX_LABELS = 200
SHELL = ("/bin/sh", "-c")  # prefix of a command given as one text

Shown = dict[str, Any]

log = logging.getLogger(__name__)


def list_runs(
    runs: Runs, text: str = "", before: int | None = None, limit: int = MAX_RUNS
) -> list[Shown]:
    """List the latest runs selected by `Runs.search`."""
    models = group_models_by_run(runs.store)
    return [
        list_run(position, experiment, run, models.get(run.id, []), runs)
        for position, experiment, run in runs.search(text, before, limit)
    ]


def list_run(position: int, experiment: str, run: Run, models: list[Model], runs: Runs) -> Shown:
    """Return a run for a list; after an exception, its id and the reason."""
    try:
        return {"position": position} | summarize(run, experiment, models, runs)
    except Exception as error:  # of any class: the other runs must stay visible
        log.exception("run %s cannot be listed", run.id)
        reason = f"{type(error).__name__}: {error}"
        shown = {"id": run.id, "name": run.id, "experiment": experiment, "broken": reason}
        return {"position": position} | shown


def summarize(run: Run, experiment: str, models: list[Model], runs: Runs) -> Shown:
    """Return the status of a run, its last metrics and its registered models."""
    return {
        "id": run.id,
        "name": run.name,
        "number": run.number,
        "experiment": experiment,
        "parent": run.parent,
        "status": run.status,
        "is_terminal": run.is_terminal,
        "created": run.created,
        "started": run.started,
        "ended": run.ended,
        "error": shorten(run.error["message"]) if run.error else "",
        "warnings": [shorten(each) for each in run.warnings],
        "metrics": runs.metrics.last_numbers(run.id),
        "models": [model.id for model in models],
    }


def describe_run(run: Run, runs: Runs, endpoints: Endpoints, metrics: MetricListing) -> Shown:
    """Return all details of a run for the page, including its lineage."""
    store, deployed = runs.store, endpoints.all()
    models = group_models_by_run(store).get(run.id, [])
    executed = find_executed_run(run, runs)
    children = runs.children(run.id)
    files = list(list_run_files(run, runs))
    return summarize(run, runs.get_experiment(run.experiment).name, models, runs) | {
        "kind": kind_of(run),
        "description": shorten(run.description),
        "target": run.target,
        "command": shorten(command_of(executed)),
        "has_log": executed.job is not None or find_log(executed, runs) is not None,
        "tags": shorten_labels(run.tags),
        "properties": shorten_labels(run.properties),
        "parameters": shorten_labels(list_literals(run)),
        "children": [
            {"id": child.id, "name": child.name, "status": child.status}
            for child in children[:MAX_CHILDREN]
        ],
        "child_count": len(children),
        "inputs": list_inputs(executed, store),
        "models": [
            {"id": model.id, "name": model.name, "created": model.created}
            | {"used_by": list_model_users(model, deployed, store)}
            for model in models
        ],
        "logged_models": list_logged_models(run),
        "metrics": metrics.serialize(run.id),
        "metric_count": len(runs.metrics.names(run.id)),
        "files": [
            {"name": name, "size": artifact.file.stat().st_size if artifact.file.exists() else None}
            for name, artifact in itertools.islice(sorted(files, key=order_of_file), MAX_FILES)
        ],
        "file_count": len(files),
    }


def kind_of(run: Run) -> str:
    """Return the kind of a run as shown to users."""
    if run.kind in ("batch", "step"):
        return {"batch": "Batch job", "step": "Step of a batch job"}[run.kind]
    if "v2" in run.other:
        return "Command job of SDK v2"
    if run.kind == "script":
        return "Submitted run of SDK v1"
    return "Run of MLflow" if "mlflow" in run.other else "Interactive run of SDK v1"


def command_of(run: Run) -> str:
    """Return the command of a run without its shell."""
    if run.job is None:
        return run.script
    return " ".join(run.job.command[2:] if run.job.command[:2] == SHELL else run.job.command)


def list_logged_models(run: Run) -> list[str]:
    """List the models that MLflow has logged as files of the run."""
    return [
        str(each.get("name")) for each in run.other.get("mlflow", {}).get("models", {}).values()
    ]


def order_of_file(file: tuple[str, Any]) -> tuple[bool, str]:
    """Return a sort key: outputs first, then logs."""
    return not file[0].startswith("outputs/"), file[0]


def shorten_labels(labels: dict[str, Any]) -> dict[str, str]:
    return {
        shorten(name, MAX_LABEL): shorten("" if value is None else str(value), MAX_LABEL)
        for name, value in itertools.islice(labels.items(), MAX_LABELS)
    }


def shorten(text: str, length: int = MAX_TEXT) -> str:
    return text if len(text) <= length else f"{text[:length]} …"
