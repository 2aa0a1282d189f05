"""Runs as ``show`` and the page list them."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import pytest

from mnist_deploy.local.core.metrics import Metric, Metrics
from mnist_deploy.local.core.records import Model
from mnist_deploy.local.core.runs import Job, Runs
from mnist_deploy.local.portal.metric_listing import MetricListing
from mnist_deploy.local.portal.run_listing import (
    MAX_CHILDREN,
    MAX_FILES,
    MAX_LABEL,
    MAX_LABELS,
    MAX_TEXT,
    describe_run,
    kind_of,
    list_runs,
)


def log(runs: Runs, name: str, *values: object) -> None:
    logged = tuple({"data": {name: value}} for value in values)
    runs.metrics.log("r1", [Metric(name, {name: "Double"}, "scalar", logged)])


def test_run_is_listed_with_its_last_metrics_and_the_models_it_registered(runs, run):
    log(runs, "loss", 1.0, 0.5)
    log(runs, "note", "text")
    runs.store.write(f"{run.artifacts}/outputs/m", [b"m"])
    for other in ({"v1": {"runId": "r1"}}, {}):
        runs.store.add(Model("m", 0, (f"{run.artifacts}/outputs",), "2026-01-01", other=other))
    runs.set_status("r1", "Completed")
    [listed] = list_runs(runs)
    assert listed["metrics"] == {"loss": 0.5}
    assert listed["models"] == ["m:2", "m:1"]


def test_reason_of_a_failed_run_is_listed_with_bounded_length(runs, run):
    runs.set_status("r1", "Failed", {"code": "UserError", "message": "no digits"})
    assert list_runs(runs)[0]["error"] == "no digits"
    runs.create(runs.create_experiment("digits"), "r2")
    runs.set_status("r2", "Failed", {"code": "UserError", "message": "x" * 100_000})
    assert len(list_runs(runs)[0]["error"]) == MAX_TEXT + 2


def test_run_that_cannot_be_listed_does_not_hide_the_others(runs, run, monkeypatch):
    runs.create(runs.create_experiment("digits"), "r2")
    last_numbers = Metrics.last_numbers

    def fail_for_r2(self: Metrics, run_id: str) -> dict:
        return {}["broken"] if run_id == "r2" else last_numbers(self, run_id)

    monkeypatch.setattr(Metrics, "last_numbers", fail_for_r2)
    broken, listed = list_runs(runs)
    assert (broken["id"], broken["broken"], listed["id"]) == ("r2", "KeyError: 'broken'", "r1")


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        ({"kind": "script"}, "Submitted run of SDK v1"),
        ({"kind": "script", "other": {"v2": {}}}, "Command job of SDK v2"),
        ({"other": {"mlflow": {"user": ""}}}, "Run of MLflow"),
        ({}, "Interactive run of SDK v1"),
        ({"kind": "batch"}, "Batch job"),
        ({"kind": "step"}, "Step of a batch job"),
    ],
)
def test_kind_of_a_run_names_its_client(run, fields, kind):
    assert kind_of(dataclasses.replace(run, **fields)) == kind


def test_described_run_has_bounded_lists(runs, run):
    experiment = runs.create_experiment("digits")
    for number in range(MAX_CHILDREN + 1):
        runs.create(experiment, f"child-{number}", "r1")
    for number in range(MAX_FILES + 1):
        runs.store.write(f"{run.artifacts}/logs/{number}", [b""])
    runs.store.write(f"{run.artifacts}/outputs/model", [b"12345"])
    tags = {f"tag {number}": "x" * 10_000 for number in range(MAX_LABELS + 1)}
    command = ("/bin/sh", "-c", "python train.py")
    run = runs.change("r1", lambda run: dataclasses.replace(run, tags=tags, job=Job(command)))
    shown = describe_run(run, runs, SimpleNamespace(all=list), MetricListing(runs.metrics))
    assert (len(shown["children"]), shown["child_count"]) == (MAX_CHILDREN, MAX_CHILDREN + 1)
    assert (len(shown["files"]), shown["file_count"]) == (MAX_FILES, MAX_FILES + 2)
    assert shown["files"][0] == {"name": "outputs/model", "size": 5}
    assert (len(shown["tags"]), len(shown["tags"]["tag 1"])) == (MAX_LABELS, MAX_LABEL + 2)
    assert (shown["command"], shown["has_log"]) == ("python train.py", True)
