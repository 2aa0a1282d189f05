"""Experiments and runs through the genuine azureml-core, with real training processes."""

from __future__ import annotations

import textwrap
import time
import uuid
from pathlib import Path

import pytest
from sdk_polling import fast_polls
from weights_service import WORKSPACE

pytestmark = pytest.mark.processes

HISTORY = f"/history/v1.0{WORKSPACE}"
WAIT = 60.0  # seconds that a run may take on a busy machine
TRAIN = """
import argparse
import os
from azureml.core import Run
parser = argparse.ArgumentParser()
parser.add_argument("--rate", type=float)
options = parser.parse_args()
run = Run.get_context()
print("training with", options.rate)
for epoch in range(3):
    run.log("loss", 1 / (epoch + 1))
run.log("rate", options.rate)
run.log_list("sizes", [1, 2, 3])
run.log_row("row", a=1, b=2.5)
run.log_table("table", {"x": [1, 2], "y": [3, 4]})
with open("outputs/model.txt", "w") as file:
    file.write("weights")
"""


@pytest.fixture(scope="module", autouse=True)
def _quick_run_polls():
    from azureml.core import run

    with fast_polls(run):
        yield


@pytest.fixture(scope="module")
def cluster(local_ws):
    from azureml.core.compute import AmlCompute, ComputeTarget

    size = AmlCompute.provisioning_configuration("STANDARD_D2_V2", min_nodes=1, max_nodes=4)
    created = ComputeTarget.create(local_ws, "cpu-cluster", size)
    created.wait_for_completion(timeout_in_minutes=1)
    return created


@pytest.fixture(scope="module")
def experiment(local_ws):
    from azureml.core import Experiment

    return Experiment(local_ws, f"digits-{uuid.uuid4().hex[:8]}")


def configure(script: str, target="local", **options):
    """A ScriptRunConfig of a folder with one script."""
    from azureml.core import ScriptRunConfig

    folder = Path("source")
    folder.mkdir(exist_ok=True)
    (folder / "train.py").write_text(textwrap.dedent(script))
    return ScriptRunConfig("source", script="train.py", compute_target=target, **options)


def wait_for_status(run, *statuses: str) -> str:
    deadline = time.monotonic() + WAIT
    while (status := run.get_status()) not in statuses:
        assert time.monotonic() < deadline, status
        time.sleep(0.1)
    return status


@pytest.fixture(scope="module")
def trained(local_ws, cluster, experiment, tmp_path_factory):
    """A run of the cluster that has completed, and what was printed while it ran."""
    import contextlib
    import io

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("trained"))
        configuration = configure(TRAIN, cluster, arguments=["--rate", 0.5])
        run = experiment.submit(configuration, tags={"edition": "first"})
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        run.wait_for_completion(show_output=True)
    return run, printed.getvalue()


def test_created_cluster_has_all_nodes(cluster):
    status = cluster.get_status().serialize()
    assert status["provisioningState"] == "Succeeded"
    assert status["currentNodeCount"] == status["targetNodeCount"] == 1


def test_cluster_with_gpus_is_rejected(local_ws):
    from azureml.core.compute import AmlCompute, ComputeTarget

    size = AmlCompute.provisioning_configuration("STANDARD_NC6", max_nodes=1)
    with pytest.raises(Exception, match=r"clusters with GPUs \(vm_size STANDARD_NC6\)"):
        ComputeTarget.create(local_ws, "gpu-cluster", size)


def test_log_of_a_run_is_streamed(trained):
    run, printed = trained
    assert "Streaming user_logs/std_log.txt" in printed
    assert "training with 0.5\n" in printed
    assert run.get_status() == "Completed"


def test_logged_metrics_of_a_run_are_returned_unchanged(trained):
    run, _ = trained
    assert run.get_metrics() == {
        "loss": [1.0, 0.5, 1 / 3],
        "rate": 0.5,
        "row": {"a": 1, "b": 2.5},
        "sizes": [1, 2, 3],
        "table": {"x": [1, 2], "y": [3, 4]},
    }
    assert run.get_metrics("rate") == {"rate": 0.5}


def test_outputs_of_a_run_can_be_downloaded_and_registered(trained, local_ws):
    run, _ = trained
    assert run.get_file_names() == ["outputs/model.txt", "user_logs/std_log.txt"]
    run.download_file("outputs/model.txt", "model.txt")
    assert Path("model.txt").read_text() == "weights"
    run.download_files(prefix="outputs", output_directory="all")
    assert Path("all/outputs/model.txt").exists()
    model = run.register_model("trained", "outputs/model.txt", tags={"by": "run"})
    assert model.run_id == run.id
    assert model.experiment_name == run.experiment.name
    assert Path(model.download("got")).read_text() == "weights"


def test_run_is_found_by_its_id_and_by_filters(trained, experiment, local_ws):
    from azureml.core import Run

    run, _ = trained
    assert Run.get(local_ws, run.id).type == "azureml.scriptrun"
    found = [each.id for each in experiment.get_runs(tags={"edition": "first"})]
    assert found == [run.id]
    assert [each.id for each in experiment.get_runs(tags={"edition": "second"})] == []
    assert run.id in [each.id for each in Run.list(experiment, status="Completed")]
    assert run.get_properties()["ContentSnapshotId"]


def test_failed_run_raises_with_the_traceback_of_its_script(experiment, cluster):
    run = experiment.submit(configure("raise ValueError('no digits')", cluster))
    with pytest.raises(Exception, match="ValueError: no digits"):
        run.wait_for_completion(show_output=True)
    error = run.get_details()["error"]["error"]
    assert error["code"] == "UserError"
    assert "exit status 1" in error["message"]


@pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning")  # the SDK's
def test_run_with_local_target_gets_its_arguments(experiment, capsys):
    run = experiment.submit(configure("import sys; print(sys.argv[1:])", arguments=["a b", 3]))
    run.wait_for_completion(show_output=True)
    assert "['a b', '3']" in capsys.readouterr().out


def test_command_is_run_by_a_shell(experiment, cluster, capsys):
    from azureml.core import ScriptRunConfig

    Path("source").mkdir()
    Path("source/show.py").write_text("import os; print('shown', os.environ['COLOUR'])")
    configuration = ScriptRunConfig(
        "source", command=["python", "show.py", "&&", "echo", "done"], compute_target=cluster
    )
    configuration.run_config.environment_variables = {"COLOUR": "red"}
    experiment.submit(configuration).wait_for_completion(show_output=True)
    assert "shown red\ndone\n" in capsys.readouterr().out


def test_canceled_run_is_stopped(experiment, cluster):
    run = experiment.submit(configure("import time; time.sleep(300)", cluster))
    wait_for_status(run, "Running")
    run.cancel()
    assert wait_for_status(run, "Canceled", "Failed") == "Canceled"


def test_run_is_killed_after_its_time_limit(experiment, cluster):
    configuration = configure("import time; time.sleep(300)", cluster, max_run_duration_seconds=1)
    details = experiment.submit(configuration).wait_for_completion(raise_on_error=False)
    assert details["error"]["error"]["code"] == "Timeout"


def test_several_nodes_are_reported_as_a_warning(experiment, cluster, capsys):
    configuration = configure("print('one process')", cluster)
    configuration.run_config.node_count = 3
    experiment.submit(configuration).wait_for_completion(show_output=True)
    assert "node_count: 3 nodes were requested" in capsys.readouterr().out


def test_run_of_a_cluster_that_does_not_exist_is_rejected(experiment):
    with pytest.raises(Exception, match="There is no compute gone"):
        experiment.submit(configure("print()", "gone"))


def test_interactive_run_logs_and_ends(experiment, tmp_path):
    run = experiment.start_logging(snapshot_directory=None)
    run.log("accuracy", 0.9)
    run.tag("flag")
    run.add_properties({"made": "here"})
    Path("report.txt").write_text("fine")
    run.upload_file("outputs/report.txt", "report.txt")
    matrix = {"schema_type": "confusion_matrix", "schema_version": "1.0.0",
              "data": {"class_labels": ["0", "1"], "matrix": [[1, 2], [3, 4]]}}  # fmt: skip
    run.log_confusion_matrix("confusion", matrix)
    run.complete()
    assert run.get_status() == "Completed"
    assert run.get_file_names() == ["confusion", "outputs/report.txt"]
    assert run.get_metrics("accuracy") == {"accuracy": 0.9}
    assert run.get_tags() == {"flag": None}
    run.remove_tags(["flag"])
    assert run.get_tags() == {}
    assert run.get_properties()["made"] == "here"


def test_interactive_run_fails_with_its_reason(experiment):
    run = experiment.start_logging(snapshot_directory=None)
    run.fail("the digits are gone", "NoDigits")
    assert run.get_status() == "Failed"
    assert run.get_details()["error"]["error"]["message"] == "the digits are gone"


def test_child_runs_are_listed_below_their_parent(experiment):
    run = experiment.start_logging(snapshot_directory=None)
    child = run.child_run("part")
    child.log("loss", 1)
    child.complete()
    for each in run.create_children(count=2):
        each.complete()
    run.complete()
    assert len(list(run.get_children())) == 3
    assert run.get_metrics(recursive=True) == {child.id: {"loss": 1}}
    listed = [each.id for each in experiment.get_runs()]
    assert run.id in listed
    assert child.id not in listed
    assert child.id in [each.id for each in experiment.get_runs(include_children=True)]


def test_archived_experiment_is_not_listed(local_ws):
    from azureml.core import Experiment

    experiment = Experiment(local_ws, f"old-{uuid.uuid4().hex[:8]}")
    experiment.tag("kind", "old")
    experiment.archive()
    assert experiment.name not in [each.name for each in Experiment.list(local_ws)]
    experiment.reactivate()
    assert [each.tags for each in Experiment.list(local_ws, experiment.name)] == [{"kind": "old"}]
    Experiment.delete(local_ws, experiment.id)
    assert experiment.name not in [each.name for each in Experiment.list(local_ws)]


def test_errors_of_run_history_have_code_and_message(call, experiment, local_ws):
    for method, path, status in (
        ("GET", f"{HISTORY}/experiments/none", 404),
        ("GET", f"{HISTORY}/runs/none", 404),
        ("POST", f"{HISTORY}/experiments/{experiment.name}/runs:query", 400),
    ):
        answer = call(method, path, json={"filter": "Status like x"})
        assert answer.status_code == status, path
        assert set(answer.json()["error"]) >= {"code", "message"}
