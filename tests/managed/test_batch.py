"""The helpers for batch endpoints, on a genuine local workspace."""

from __future__ import annotations

from types import SimpleNamespace

import pandas as pd
import pytest
from azure.ai.ml.entities import AmlCompute, Environment, Model

from mnist_deploy.errors import DeploymentError, ScoringError
from mnist_deploy.managed import deploy_batch, score_batch

pytestmark = pytest.mark.processes

SCRIPT = """
import os
from pathlib import Path
import pandas as pd

def init():
    global weight
    weight = int(Path(os.environ["AZUREML_MODEL_DIR"], "weight.txt").read_text())

def run(mini_batch):
    return pd.DataFrame([[Path(path).name, weight * int(Path(path).read_text())]
                         for path in mini_batch])
"""


@pytest.fixture(scope="module")
def assets(client, tmp_path_factory):
    """(model, environment) and a cluster."""
    client.compute.begin_create_or_update(
        AmlCompute(name="cluster", size="STANDARD_D2_V2")
    ).result()
    file = tmp_path_factory.mktemp("weight") / "weight.txt"
    file.write_text("10")
    model = client.models.create_or_update(Model(name="weight", path=str(file)))
    environment = client.environments.create_or_update(
        Environment(name="weight", image="mcr.microsoft.com/x", conda_file={"dependencies": []})
    )
    return model, environment


@pytest.fixture
def endpoint(client, assets, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "weigh.py").write_text(SCRIPT)
    made = deploy_batch(
        client, *assets, name="weigh", entry_script="weigh.py", compute="cluster", error_threshold=0
    )
    yield made
    client.batch_endpoints.begin_delete("weigh").result()


def test_folder_is_scored(client, endpoint, tmp_path, capsys):
    (tmp_path / "numbers").mkdir()
    for number in range(3):
        (tmp_path / "numbers" / f"{number}.txt").write_text(str(number))
    path = score_batch(client, endpoint, tmp_path / "numbers")
    rows = pd.read_csv(path, sep=" ", header=None)
    assert sorted(rows.itertuples(index=False, name=None)) == [
        ("0.txt", 0), ("1.txt", 10), ("2.txt", 20)
    ]  # fmt: skip
    assert "3 files scored, 0 failed" in capsys.readouterr().out


def test_failed_job_is_a_scoring_error_with_the_traceback(client, endpoint, tmp_path):
    (tmp_path / "words").mkdir()
    (tmp_path / "words" / "a.txt").write_text("no number")
    with pytest.raises(ScoringError, match="ValueError: invalid literal"):
        score_batch(client, endpoint, tmp_path / "words")


def test_missing_cluster_is_a_deployment_error(client, assets, tmp_path):
    script = tmp_path / "weigh.py"
    script.write_text(SCRIPT)
    with pytest.raises(DeploymentError, match="no compute no-cluster"):
        deploy_batch(client, *assets, name="none", entry_script=script, compute="no-cluster")


def test_missing_script_is_a_deployment_error(client, assets):
    with pytest.raises(DeploymentError, match=r"no\.py cannot be compiled"):
        deploy_batch(client, *assets, name="none", entry_script="no.py", compute="cluster")


def test_endpoint_of_the_wrong_class_is_rejected(client):
    with pytest.raises(TypeError, match="BatchEndpoint"):
        score_batch(client, SimpleNamespace(name="weigh"), "folder")
