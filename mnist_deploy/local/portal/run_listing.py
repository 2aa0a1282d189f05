"""Experiments and runs as the command ``show`` and the page list them, as plain JSON."""

from __future__ import annotations

from typing import Any

from ..core.records import Model
from ..core.runs import Run, Runs

MAX_RUNS = 100  # the latest ones


def list_runs(runs: Runs) -> list[dict[str, Any]]:
    """The latest runs, with their last metrics and the models that they have registered."""
    models: dict[str, list[str]] = {}
    for model in runs.store.all(Model):
        run_id = model.other.get("v1", {}).get("runId")
        if run_id:
            models.setdefault(run_id, []).append(model.id)
    names = {experiment.id: experiment.name for experiment in runs.experiments()}
    found = runs.select_runs()[:MAX_RUNS]
    return [
        serialize_run(run, names[run.experiment], models.get(run.id, []), runs) for run in found
    ]


def serialize_run(run: Run, experiment: str, models: list[str], runs: Runs) -> dict[str, Any]:
    return {
        "name": run.id,
        "experiment": experiment,
        "status": run.status,
        "created": run.created,
        "started": run.started,
        "ended": run.ended,
        "error": run.error["message"] if run.error else "",
        "warnings": list(run.warnings),
        "metrics": last_values(run, runs),
        "models": models,
    }


def last_values(run: Run, runs: Runs) -> dict[str, float]:
    """The last value of each metric that is a number."""
    values = {}
    for name, columns, _ in runs.metric_names(run.id):
        if list(columns) == [name]:
            logged = runs.metric(run.id, name).values
            value = logged[-1]["data"].get(name) if logged else None
            if isinstance(value, int | float):
                values[name] = value
    return values
