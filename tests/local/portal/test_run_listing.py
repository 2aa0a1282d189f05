"""Runs as ``show`` and the page list them."""

from __future__ import annotations

import pytest
from generated_requests import portal_to_try

from mnist_deploy.local.cli.show import run_line
from mnist_deploy.local.core.records import Model
from mnist_deploy.local.core.runs import Metric, Runs
from mnist_deploy.local.core.store import Store
from mnist_deploy.local.portal.run_listing import list_runs
from mnist_deploy.local.rest import state_of


@pytest.fixture
def runs(tmp_path):
    store = Store(tmp_path / "store")
    yield Runs(store)
    store.close()


def log(runs: Runs, name: str, *values: object) -> None:
    logged = tuple({"data": {name: value}} for value in values)
    runs.log("r1", [Metric(name, {name: "Double"}, "scalar", logged)])


def test_run_is_listed_with_its_last_metrics_and_the_models_it_registered(runs):
    run = runs.create(runs.create_experiment("digits"), "r1")
    log(runs, "loss", 1.0, 0.5)
    log(runs, "note", "text")
    runs.store.write(f"{run.artifacts}/outputs/m", [b"m"])
    for other in ({"v1": {"runId": "r1"}}, {}):
        runs.store.add(Model("m", 0, (f"{run.artifacts}/outputs",), "2026-01-01", other=other))
    runs.set_status("r1", "Completed")
    [listed] = list_runs(runs)
    assert listed["metrics"] == {"loss": 0.5}
    assert listed["models"] == ["m:1"]
    started = listed["started"][:16].replace("T", " ")
    assert run_line(listed) == f"r1  digits  Completed  {started}  loss 0.5  m:1"


def test_reason_of_a_failed_run_is_listed(runs):
    runs.create(runs.create_experiment("digits"), "r1")
    runs.set_status("r1", "Failed", {"code": "UserError", "message": "no digits"})
    assert list_runs(runs)[0]["error"] == "no digits"


def test_page_is_sent_the_runs(tmp_path):
    with portal_to_try(tmp_path) as app:
        state = state_of(app)
        runs = Runs(state.store)
        runs.create(runs.create_experiment("digits"), "r1")
        answer = app.test_client().get(
            "/api/workspace",
            headers={"Host": "localhost", "Authorization": f"Bearer {state.token}"},
        )
    assert [(run["experiment"], run["name"]) for run in answer.json["runs"]] == [("digits", "r1")]
