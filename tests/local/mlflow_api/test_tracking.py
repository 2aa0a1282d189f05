"""MLflow tracking by the genuine clients, beside azureml-core, on the same runs."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import uuid
from pathlib import Path

import pytest

pytestmark = pytest.mark.processes

CLIENT = Path(__file__).with_name("tracking_client.py")
WAIT = 240  # seconds
IN_A_RUN = """
    import mlflow
    mlflow.log_param("C", 0.5)
    mlflow.log_metric("accuracy", 0.92)
    with open("notes.txt", "w") as file:
        file.write("digits")
    mlflow.log_artifact("notes.txt")
    print("experiment", mlflow.get_experiment(mlflow.active_run().info.experiment_id).name)
"""


@pytest.fixture
def _mlflow():
    pytest.importorskip("mlflow")


def run_client(endpoint, uri: str, experiment: str) -> list[str]:
    """Run the script of the client, and return the ids of its runs."""
    done = subprocess.run(
        [sys.executable, str(CLIENT), uri, experiment],
        env=os.environ | endpoint.environment(),
        capture_output=True,
        text=True,
        timeout=WAIT,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WARNING mlflow.utils.autologging_utils: Encountered" not in done.stderr, done.stderr
    lines = [line for line in done.stdout.splitlines() if line.startswith("runs:")]
    return lines[-1].split()[1:]


def name_experiment() -> str:
    return f"tracked-{uuid.uuid4().hex[:8]}"


def check_as_azureml_core(ws, experiment: str, run_ids: list[str]) -> None:
    from azureml.core import Run

    by_hand, automatic = (Run.get(ws, run_id) for run_id in run_ids)
    assert (by_hand.experiment.name, by_hand.get_status()) == (experiment, "Completed")
    metrics = by_hand.get_metrics()
    assert (metrics["loss"], metrics["accuracy"]) == ([1, 1 / 2, 1 / 3], 0.92)
    assert by_hand.get_tags()["stage"] == "trial"
    assert [child.get_metrics() for child in by_hand.get_children()] == [{"loss": 9}]
    assert "notes/about.txt" in by_hand.get_file_names()
    assert "model/MLmodel" in automatic.get_file_names()
    assert automatic.register_model("tracked", "model").version >= 1


@pytest.mark.usefixtures("_mlflow")
def test_plain_mlflow_and_azureml_core_list_the_same_runs(endpoint, local_ws):
    experiment = name_experiment()
    check_as_azureml_core(local_ws, experiment, run_client(endpoint, "", experiment))


@pytest.mark.usefixtures("_mlflow")
def test_azureml_mlflow_and_azureml_core_list_the_same_runs(endpoint, local_ws):
    pytest.importorskip("azureml.mlflow")
    uri = local_ws.get_mlflow_tracking_uri()
    experiment = name_experiment()
    check_as_azureml_core(local_ws, experiment, run_client(endpoint, uri, experiment))


def test_mlflow_reads_the_metrics_that_azureml_core_logs(endpoint, local_ws, call):
    from azureml.core import Experiment

    run = Experiment(local_ws, name_experiment()).start_logging(snapshot_directory=None)
    for loss in (3, 2):
        run.log("loss", loss)
    run.log_table("table", {"x": [1, 2]})
    run.complete()
    found = call("GET", f"/mlflow/api/2.0/mlflow/runs/get?run_id={run.id}").json()["run"]
    assert [(each["key"], each["value"]) for each in found["data"]["metrics"]] == [("loss", 2)]
    assert found["info"]["status"] == "FINISHED"


@pytest.mark.usefixtures("_mlflow")
@pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning")  # the SDK's
def test_script_of_a_run_logs_to_its_own_run(local_ws):
    from azureml.core import Experiment, ScriptRunConfig

    Path("source").mkdir()
    Path("source/train.py").write_text(textwrap.dedent(IN_A_RUN))
    experiment = Experiment(local_ws, name_experiment())
    run = experiment.submit(ScriptRunConfig("source", "train.py", compute_target="local"))
    run.wait_for_completion()
    assert run.get_metrics() == {"accuracy": 0.92}
    assert "notes.txt" in run.get_file_names()


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "experiments/get-by-name?experiment_name=missing", 404, "RESOURCE_DOES_NOT_EXIST"),
        ("GET", "runs/get", 400, "INVALID_PARAMETER_VALUE"),
        ("POST", "traces", 501, "ENDPOINT_NOT_FOUND"),
    ],
)
def test_errors_have_the_schema_of_mlflow(call, method, path, status, code):
    answer = call(method, f"/mlflow/api/2.0/mlflow/{path}")
    assert (answer.status_code, answer.json()["error_code"]) == (status, code)
    assert answer.json()["message"]


def test_request_without_the_token_is_rejected(call):
    answer = call("GET", "/mlflow/api/2.0/mlflow/runs/get", headers={"Authorization": "Bearer x"})
    assert (answer.status_code, answer.json()["error_code"]) == (401, "UNAUTHENTICATED")
