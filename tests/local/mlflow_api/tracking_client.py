"""What a training script does with MLflow; the tracking URI is the argument, empty for the default.

Article "Log metrics, parameters and files with MLflow", and "Track machine learning experiments".
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import mlflow
import pytest
from mlflow.exceptions import MlflowException


def expect_error(code: str, function, *arguments) -> None:
    with pytest.raises(MlflowException) as caught:
        function(*arguments)
    assert caught.value.error_code == code, caught.value


def log_by_hand(name: str) -> str:
    client = mlflow.MlflowClient()
    assert client.get_experiment_by_name(name) is None
    experiment = mlflow.set_experiment(name)
    expect_error("RESOURCE_ALREADY_EXISTS", client.create_experiment, name)
    expect_error("RESOURCE_DOES_NOT_EXIST", client.get_run, "missing")
    with mlflow.start_run(run_name="by hand", tags={"edition": "first"}) as run:
        mlflow.log_params({"C": 0.5, "solver": "liblinear"})
        for step in range(3):
            mlflow.log_metric("loss", 1 / (step + 1), step=step)
        mlflow.log_metrics({"accuracy": 0.92, "gap": float("nan")})
        mlflow.set_tag("stage", "trial")
        mlflow.log_text("digits", "notes/about.txt")
        with mlflow.start_run(nested=True) as child:
            mlflow.log_metric("loss", 9)
        expect_error("INVALID_PARAMETER_VALUE", client.log_param, run.info.run_id, "C", 2)
    found = mlflow.get_run(run.info.run_id)
    assert (found.info.status, found.info.run_name) == ("FINISHED", "by hand")
    assert found.data.params == {"C": "0.5", "solver": "liblinear"}, found.data.params
    assert (found.data.metrics["loss"], found.data.metrics["accuracy"]) == (1 / 3, 0.92)
    assert found.data.metrics["gap"] != found.data.metrics["gap"], found.data.metrics
    assert (found.data.tags["stage"], found.data.tags["edition"]) == ("trial", "first")
    history = client.get_metric_history(run.info.run_id, "loss")
    assert [(each.step, each.value) for each in history] == [(0, 1), (1, 1 / 2), (2, 1 / 3)]
    assert [each.path for each in client.list_artifacts(run.info.run_id, "notes")] == [
        "notes/about.txt"
    ]
    with tempfile.TemporaryDirectory() as folder:
        file = client.download_artifacts(run.info.run_id, "notes/about.txt", folder)
        assert Path(file).read_text() == "digits"

    def search(text: str, **options) -> list[str]:
        runs = client.search_runs([experiment.experiment_id], text, **options)
        return [each.info.run_id for each in runs]

    assert search("metrics.loss < 1 and params.C = '0.5'") == [run.info.run_id]
    assert search("tags.stage LIKE 'tri%' AND attributes.status = 'FINISHED'") == [run.info.run_id]
    both = [child.info.run_id, run.info.run_id]
    assert search("", order_by=["metrics.loss DESC"]) == both
    assert search("", order_by=["metrics.loss ASC"], max_results=1) == both[1:]
    expect_error("INVALID_PARAMETER_VALUE", search, "metrics.loss <")
    expect_error("ENDPOINT_NOT_FOUND", client.delete_run, run.info.run_id)
    return run.info.run_id


def log_automatically() -> str:
    import numpy as np
    from sklearn.linear_model import LogisticRegression

    mlflow.sklearn.autolog()
    generator = np.random.default_rng(0)
    with mlflow.start_run() as run:
        images = generator.random((40, 4))
        fitted = LogisticRegression(C=0.25).fit(images, images[:, 0] > 0.5)
    found = mlflow.get_run(run.info.run_id)
    assert found.data.params["C"] == "0.25", found.data.params
    assert 0.5 < found.data.metrics["training_score"] <= 1, found.data.metrics
    loaded = mlflow.sklearn.load_model(f"runs:/{run.info.run_id}/model")
    assert (loaded.coef_ == fitted.coef_).all()
    return run.info.run_id


if __name__ == "__main__":
    uri, experiment = sys.argv[1:]
    if uri:
        mlflow.set_tracking_uri(uri)
    print("runs:", log_by_hand(experiment), log_automatically())
