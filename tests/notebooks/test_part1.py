"""The notebook of part one, run for real on the sample, and what part two finds of it."""

from __future__ import annotations

import re

import pytest
from probed_run import run_probed

from mnist_deploy import fetch_environment, fetch_model, local, prepare_workspace

pytestmark = pytest.mark.processes

NAME = "img-classification-part1-training"
PROBES = {
    "accuracy": "metrics['accuracy']",
    "statuses": "[each.get_status() for each in experiment.get_runs()]",
    "differing": "int(np.sum(y_hat != np.load('predicted_labels.npy')))",
    "dataset": "dataset.name",
    "run_id": "run.id",
}


@pytest.fixture(scope="module")
def run(tmp_path_factory, home, sample_dir):
    """This process holds the workspace, in which nothing was registered before."""
    folder = tmp_path_factory.mktemp("part1")
    ws = local.connect(home)
    try:
        yield run_probed(NAME, PROBES, folder, home, "--data-dir", str(sample_dir)), ws
    finally:
        local.stop(home)


def test_run_trains_the_model_on_the_sample(run):
    found = run[0].values
    assert found["accuracy"] > 0.88
    assert found["statuses"] == ["Completed", "Completed"]  # with SDK v1, and as a command job
    assert found["differing"] == 0


def test_log_of_the_run_is_shown(run):
    printed = run[0].printed
    assert "Streaming user_logs/std_log.txt" in printed
    assert "digit 9:" in printed
    assert f"Overall accuracy: {run[0].values['accuracy']:.4f}" in run[0].stdout


def test_sections_are_numbered_and_each_has_its_time(run):
    headings = re.findall(r"^(\d+)\. .*\d s$", run[0].stdout, re.M)
    assert headings == [str(number) for number in range(1, 9)]


def test_part_two_starts_where_part_one_ends(run, sample_dir):
    """`prepare_workspace` takes the model of the run: it trains none of its own."""
    probed, ws = run
    model = prepare_workspace(ws, sample_dir)
    assert model.version == 1
    assert model.run_id == probed.values["run_id"]
    assert fetch_model(ws).id == "sklearn_mnist:1"
    assert fetch_environment(ws).version == "1"


def test_credentials_of_the_user_are_not_used(run):
    """The data engine logs in to the local workspace and requests no other token."""
    assert "DefaultAzureCredential" not in run[0].printed
