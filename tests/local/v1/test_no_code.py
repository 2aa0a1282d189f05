"""No-code deployments through the genuine SDK: scikit-learn works, other frameworks do not."""

from __future__ import annotations

import json

import joblib
import numpy as np
import pytest
import requests
from azureml.core import Model
from azureml.core.resource_configuration import ResourceConfiguration
from azureml.exceptions import WebserviceException
from sklearn.linear_model import LogisticRegression

ROWS = np.random.default_rng(0).random((30, 4))


def register(ws, name: str, **more) -> tuple[LogisticRegression, Model]:
    classifier = LogisticRegression().fit(ROWS, np.arange(30) % 3)
    joblib.dump(classifier, "classifier.pkl")
    framework = Model.Framework.SCIKITLEARN
    return classifier, Model.register(ws, "classifier.pkl", name, model_framework=framework, **more)


def test_classifier_returns_probabilities_or_labels(local_ws):
    size = ResourceConfiguration(cpu=1, memory_in_gb=0.75)
    more = {"model_framework_version": "0.19.1", "resource_configuration": size}
    classifier, model = register(local_ws, "classifier", **more)
    service = Model.deploy(local_ws, "no-code", [model])
    service.wait_for_deployment()
    try:
        wanted = service.container_resource_requirements
        assert (service.state, wanted.cpu, wanted.memory_in_gb) == ("Healthy", 1, 0.75)
        assert "scikit-learn: required ==0.19.1, installed" in service.get_logs()
        data = ROWS.tolist()
        answer = service.run(json.dumps({"data": data, "method": "predict"}))
        assert answer == {"predict": classifier.predict(ROWS).tolist()}
        answer = service.run(json.dumps({"data": data}))
        assert answer == {"predict_proba": classifier.predict_proba(ROWS).tolist()}
        answer = requests.post(service.scoring_uri, json={"data": data, "method": "fit"})
        assert (answer.status_code, answer.headers["Content-Type"]) == (400, "application/json")
        assert "'fit' is not among predict_proba, predict" in answer.json()["message"]
    finally:
        service.delete()


@pytest.mark.parametrize("framework", [Model.Framework.ONNX, Model.Framework.TENSORFLOW])
def test_unsupported_framework_is_rejected_by_name(local_ws, weights_file, framework):
    model = Model.register(local_ws, weights_file, "other", model_framework=framework)
    with pytest.raises(WebserviceException, match=f"of framework {framework}, only of Scikit"):
        Model.deploy(local_ws, "no-code", [model])


def test_model_without_script_is_packaged_with_a_generated_script(local_ws, tmp_path):
    _, model = register(local_ws, "lone")
    package = Model.package(local_ws, [model], generate_dockerfile=True)
    package.wait_for_creation()
    package.save(str(tmp_path / "saved"))
    assert "def run(body" in (tmp_path / "saved/azureml-app/no_code.py").read_text()
