"""Experiments and runs as records of the store, and the filters that select runs."""

from __future__ import annotations

import pytest

from mnist_deploy.local.core.faults import Conflict, Invalid, NotFound
from mnist_deploy.local.core.run_filter import parse_filter
from mnist_deploy.local.core.runs import INTERRUPTED, LOG_FILE, Runs, is_growing_log
from mnist_deploy.local.core.store import Store


def test_active_experiment_is_the_only_one_of_its_name(runs):
    import dataclasses

    first = runs.create_experiment("digits")
    assert runs.create_experiment("digits") == first
    runs.change_experiment(first.id, lambda e: dataclasses.replace(e, archived="2026"))
    second = runs.create_experiment("digits")
    assert second.id != first.id
    with pytest.raises(Conflict, match="digits exists already"):
        runs.change_experiment(first.id, lambda e: dataclasses.replace(e, archived=""))


def test_experiment_with_runs_cannot_be_deleted(runs):
    experiment = runs.create_experiment("digits")
    runs.create(experiment, "r1")
    with pytest.raises(Conflict, match="has runs"):
        runs.delete_experiment(experiment.id)
    empty = runs.create_experiment("empty")
    runs.delete_experiment(empty.id)
    assert runs.find_experiment("empty") is None


def test_run_is_numbered_in_its_experiment_and_knows_its_root(runs):
    experiment = runs.create_experiment("digits")
    parent = runs.create(experiment, "r1")
    child = runs.create(experiment, "r2", parent="r1")
    grandchild = runs.create(experiment, "r3", parent="r2")
    assert [parent.number, child.number, grandchild.number] == [1, 2, 3]
    assert grandchild.root == "r1"
    assert [run.id for run in runs.children("r1")] == ["r2"]
    with pytest.raises(Conflict):
        runs.create(experiment, "r1")
    with pytest.raises(NotFound):
        runs.create(experiment, "r4", parent="none")


@pytest.mark.parametrize("run_id", ["", "a/b", "a\\b", "a\0"])
def test_run_id_that_is_not_a_path_segment_is_rejected(runs, run_id):
    experiment = runs.create_experiment("digits")
    with pytest.raises(Invalid):
        runs.create(experiment, run_id)


def test_terminal_status_is_final(runs):
    runs.create(runs.create_experiment("digits"), "r1")
    assert runs.set_status("r1", "Running").started
    assert runs.set_status("r1", "Completed").ended
    assert runs.set_status("r1", "Failed", {"code": "late"}).status == "Completed"


def test_runs_are_searched_by_id_name_status_and_experiment(runs):
    letters, digits = runs.create_experiment("letters"), runs.create_experiment("Digits %_")
    for run_id, experiment, name in (("a", letters, ""), ("b", digits, ""), ("c", digits, "Best")):
        runs.create(experiment, run_id, name=name)
    runs.set_status("a", "Failed")

    def ids(*arguments: object) -> str:
        return "".join(run.id for _, _, run in runs.search(*arguments))

    assert (ids(), ids("digits"), ids("BEST"), ids("fail"), ids("%_"), ids("z")) == (
        "cba", "cb", "c", "a", "cb", "")  # fmt: skip
    [(position, name, _)] = runs.search("", None, 1)
    assert (name, ids("", position, 1), runs.count()) == ("Digits %_", "b", 3)


def test_records_and_files_survive_a_restart_and_active_runs_fail(store, tmp_path):
    runs = Runs(store)
    experiment = runs.create_experiment("digits")
    active, done = runs.create(experiment, "r1"), runs.create(experiment, "r2")
    runs.set_status("r1", "Running")
    runs.set_status("r2", "Completed")
    for run in (active, done):
        store.write(f"{run.artifacts}/outputs/model.pkl", [b"model"])
    store.write("ExperimentRun/dcid.unknown/outputs/model.pkl", [b"of no run"])
    store.write("datastore/mnist/train.gz", [b"data"])
    store.close()

    reopened = Store(store.folder)
    again = Runs(reopened)
    again.fail_interrupted()
    assert again.get("r1").error == {"code": "WorkspaceEnded", "message": INTERRUPTED}
    assert again.get("r2").status == "Completed"
    kept = [each.path for prefix in ("ExperimentRun", "datastore") for each in
            reopened.artifacts(prefix)]  # fmt: skip
    assert kept == [
        "ExperimentRun/dcid.r1/outputs/model.pkl",
        "ExperimentRun/dcid.r2/outputs/model.pkl",
        "datastore/mnist/train.gz",
    ]
    assert reopened.id == Store.id.fget(reopened)
    reopened.close()


def test_store_has_an_id_of_its_own(store, tmp_path):
    other = Store(tmp_path / "other")
    assert len(store.id) == 36
    assert store.id != other.id
    other.close()


def test_only_the_log_of_a_run_is_read_while_it_grows():
    assert is_growing_log(f"ExperimentRun/dcid.r1/{LOG_FILE}")
    assert not is_growing_log("ExperimentRun/dcid.r1/outputs/std_log.txt")
    assert not is_growing_log(f"LocalUpload/dcid.r1/{LOG_FILE}")


RUN = {
    "runId": "r1",
    "parentRunId": None,
    "status": "Completed",
    "tags": {"colour": "red", "flag": None},
    "properties": {"azureml.runsource": "hyperdrive"},
    "createdUtc": "2026-11-29T12:00:00",
}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("(ParentRunId eq null)", True),
        ("(RootRunId eq r1 and RunId ne r1)", False),
        ("RunId eq r0 or RunId eq r1", True),
        ('(Status eq Completed) and (Tags/colour eq "red")', True),
        ('(Tags/colour eq "blue")', False),
        ("(Tags/flag ne null or Tags/flag eq null)", True),
        ("(Tags/size ne null or Tags/size eq null)", False),
        ("(RunType eq x or Properties/azureml.runsource eq hyperdrive)", True),
        ("(CreatedUtc ge 2026-11-01 00:00:00)", True),
        ("(CreatedUtc ge 2027-01-01 00:00:00) or (Status eq Failed)", False),
    ],
)
def test_filter_selects_runs_as_azure_does(text, expected):
    assert parse_filter(text)(RUN) is expected


@pytest.mark.parametrize(
    "text", ["", "Status", "(Status eq Failed", "Status like x", "a eq b )", ")"]
)
def test_filter_that_cannot_be_read_is_rejected(text):
    with pytest.raises(Invalid, match="is not a filter of runs"):
        parse_filter(text)
