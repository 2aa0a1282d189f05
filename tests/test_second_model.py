"""The helpers with another model than MNIST's: wines, with their own script and environment."""

from __future__ import annotations

from importlib.metadata import version

import joblib
import numpy as np
import pytest
from azureml.core import Environment, Model
from azureml.core.conda_dependencies import CondaDependencies
from sklearn.datasets import load_wine
from sklearn.ensemble import RandomForestClassifier

import mnist_deploy as md
from mnist_deploy.errors import ServiceUnavailable

pytest_plugins = ["mnist_deploy.testing"]

SCRIPT = """
import json
import os

import joblib


def init():
    global model
    model = joblib.load(os.path.join(os.environ["AZUREML_MODEL_DIR"], "wine.pkl"))


def run(data):
    return model.predict(json.loads(data)["data"]).tolist()
"""


@pytest.fixture(scope="module")
def wines():
    """Features outside of [0, 1], and names as labels."""
    data = load_wine()
    return data.data, data.target_names[data.target]


@pytest.fixture
def forest(wines, tmp_path, monkeypatch):
    """A fitted forest; its file and its script are in the working directory."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "score_wine.py").write_text(SCRIPT)
    forest = RandomForestClassifier(n_estimators=20, random_state=0).fit(*wines)
    joblib.dump(forest, "wine.pkl")
    return forest


@pytest.fixture(params=["mocked", "local"])
def workspace(request, forest):
    workspace = request.getfixturevalue(f"{request.param}_workspace")
    Model.register(workspace, "wine.pkl", "wine", tags={"data": "wine"})
    environment = Environment("wine-env")
    environment.python.conda_dependencies = CondaDependencies.create(
        python_version="3.11",
        pip_packages=["azureml-defaults", f"scikit-learn=={version('scikit-learn')}"],
    )
    environment.register(workspace)
    return workspace


def wine_service(ws, script="score_wine.py"):
    return md.deploy_to_aci(
        ws,
        md.fetch_model(ws, "wine"),
        md.build_inference_config(md.fetch_environment(ws, "wine-env"), script),
        md.build_aci_config(tags={"data": "wine"}, description="Classify wines"),
        "wine-svc",
    )


def digit_service(ws):
    inference_config = md.build_inference_config(md.fetch_environment(ws))
    return md.deploy_to_aci(
        ws, md.fetch_model(ws), inference_config, md.build_aci_config(), "digit-svc"
    )


def test_services_of_two_models_answer_independently(workspace, wines, forest, mnist_sample):
    with (
        md.closing_service(digit_service(workspace)) as digits,
        md.closing_service(wine_service(workspace)) as wine,
    ):
        assert {"digit-svc", "wine-svc"} <= workspace.webservices.keys()
        assert {"sklearn_mnist", "wine"} <= workspace.models.keys()
        assert {"tutorial-env", "wine-env"} <= workspace.environments.keys()
        numbers, _ = wines
        deployed = md.call_service(wine, numbers, batch_size=50)
        assert deployed.dtype.kind == "U"
        np.testing.assert_array_equal(deployed, forest.predict(numbers))
        predicted = md.call_service(digits, mnist_sample.images)
        assert np.mean(predicted == mnist_sample.labels) > 0.8

        md.delete_service(wine)
        assert len(md.call_service(digits, mnist_sample.images[:1])) == 1
        with pytest.raises(ServiceUnavailable):
            md.call_service(wine, numbers[:1], retry_timeout=0)
