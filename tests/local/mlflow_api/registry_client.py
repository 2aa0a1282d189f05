"""What a notebook does with MLflow's model registry; the arguments: tracking URI, name of a model.

Article "Manage models registry in Azure Machine Learning with MLflow":
https://learn.microsoft.com/azure/machine-learning/how-to-manage-models-mlflow
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import mlflow
import numpy as np
from mlflow.exceptions import MlflowException
from sklearn.linear_model import LinearRegression
from tracking_client import expect_error

PACKAGES = ["scikit-learn"]  # else MLflow starts a process for each model to find them
INPUTS = np.array([[0.0, 0.0], [1.0, 1.0], [2.0, 2.0]])


def fit(slope: float) -> LinearRegression:
    return LinearRegression().fit(INPUTS, slope * np.arange(3))


def check_versions(client: mlflow.MlflowClient, name: str) -> None:
    """Register three versions in the three ways of the article, and load each of them."""
    with mlflow.start_run() as run:
        options = {"registered_model_name": name, "pip_requirements": PACKAGES}
        mlflow.sklearn.log_model(fit(1), name="model", **options)
    first = client.get_model_version(name, "1")
    assert (first.run_id, first.status, first.current_stage) == (run.info.run_id, "READY", "None")
    with mlflow.start_run() as second:
        mlflow.sklearn.log_model(fit(2), name="folder/model", pip_requirements=PACKAGES)
    registered = mlflow.register_model(f"runs:/{second.info.run_id}/folder/model", name)
    assert registered.version in ("2", 2), registered
    assert client.create_model_version(name, f"models:/{name}/1").run_id == run.info.run_id
    for version, slope in (("1", 1), ("2", 2), ("3", 1), ("latest", 1)):
        loaded = mlflow.pyfunc.load_model(f"models:/{name}/{version}")
        assert np.allclose(loaded.predict(INPUTS), slope * np.arange(3)), version


def check_local_folder(name: str, is_azure: bool) -> None:
    """Register a folder of this machine, which azureml-mlflow uploads."""
    with tempfile.TemporaryDirectory() as folder:
        mlflow.sklearn.save_model(fit(3), f"{folder}/regressor", pip_requirements=PACKAGES)
        uri = f"file://{folder}/regressor"
        if not is_azure:
            expect_error("INVALID_PARAMETER_VALUE", mlflow.register_model, uri, f"{name}-local")
            return
        mlflow.register_model(uri, f"{name}-local")
    loaded = mlflow.sklearn.load_model(f"models:/{name}-local/1")
    assert np.allclose(loaded.predict(INPUTS), 3 * np.arange(3))


def check_edits(client: mlflow.MlflowClient, name: str) -> None:
    client.update_model_version(name, "1", description="My classifier")
    client.set_model_version_tag(name, "1", "type", "regression")
    client.set_model_version_tag(name, "1", "phase", "trial")
    client.delete_model_version_tag(name, "1", "phase")
    version = client.get_model_version(name, "1")
    assert (version.description, version.tags) == ("My classifier", {"type": "regression"})
    client.update_registered_model(name, "digits")
    client.set_registered_model_tag(name, "team", "a")
    client.set_registered_model_tag(name, "year", "2026")
    client.delete_registered_model_tag(name, "year")
    model = client.get_registered_model(name)
    assert (model.description, model.tags) == ("digits", {"team": "a"})
    assert "ENDPOINT_NOT_FOUND" in raised(client.rename_registered_model, name, "other")
    assert "ENDPOINT_NOT_FOUND" in raised(client.delete_registered_model, name)
    expect_error("RESOURCE_ALREADY_EXISTS", client.create_registered_model, name)
    expect_error("RESOURCE_DOES_NOT_EXIST", client.get_model_version, name, "9")
    expect_error("RESOURCE_DOES_NOT_EXIST", client.get_registered_model, "missing")
    expect_error("INVALID_PARAMETER_VALUE", client.create_model_version, name, "s3://bucket/model")


def raised(function, *arguments) -> str:
    try:
        function(*arguments)
    except MlflowException as error:
        return error.error_code
    return "no error"


def check_stages(client: mlflow.MlflowClient, name: str) -> None:
    move = client.transition_model_version_stage
    move(name, "1", "Staging")
    move(name, "2", "Staging")
    newest = client.get_latest_versions(name, stages=["Staging"])
    assert [int(each.version) for each in newest] == [2]
    loaded = mlflow.pyfunc.load_model(f"models:/{name}/Staging")
    assert np.allclose(loaded.predict(INPUTS), 2 * np.arange(3))
    move(name, "3", "Staging", archive_existing_versions=True)
    stages = {
        int(each.version): each.current_stage
        for each in client.search_model_versions(f"name='{name}'")
    }
    assert stages == {1: "Archived", 2: "Archived", 3: "Staging"}, stages


def check_searches(client: mlflow.MlflowClient, name: str) -> None:
    create = client.create_registered_model
    create(f"{name}-empty", tags={"kind": "none"}, description="no version")
    assert client.get_registered_model(f"{name}-empty").tags == {"kind": "none"}
    found = client.search_registered_models(order_by=["name DESC"])
    names = [each.name for each in found]
    assert names == sorted(names, reverse=True)
    assert {name, f"{name}-empty"} <= set(names)
    assert [each.name for each in client.search_registered_models(f"name = '{name}'")] == [name]
    client.delete_model_version(name, "2")
    versions = client.search_model_versions(f"name='{name}'", order_by=["version_number ASC"])
    assert [int(each.version) for each in versions] == [1, 3]


if __name__ == "__main__":
    uri, model_name = sys.argv[1:]
    if uri:
        mlflow.set_tracking_uri(uri)
    registry = mlflow.MlflowClient()
    mlflow.set_experiment(f"{Path(__file__).stem}-{model_name}")
    check_versions(registry, model_name)
    check_local_folder(model_name, is_azure=bool(uri))
    check_edits(registry, model_name)
    check_stages(registry, model_name)
    check_searches(registry, model_name)
