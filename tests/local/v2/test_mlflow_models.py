"""MLflow models without code, deployed by the genuine SDK (Azure: "Deploy MLflow models").

Managed and Kubernetes endpoints; the model inline, registered, or named by its reference.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import requests
import yaml
from azure.ai.ml.entities import (
    Environment,
    KubernetesCompute,
    KubernetesOnlineDeployment,
    KubernetesOnlineEndpoint,
    ManagedOnlineDeployment,
    ManagedOnlineEndpoint,
    Model,
)
from azure.core.exceptions import HttpResponseError
from sklearn.linear_model import LogisticRegression

from mnist_deploy import local

pytestmark = pytest.mark.processes

ROWS = np.random.default_rng(0).random((30, 4))
CLIENT = Path(__file__).with_name("mlflow_deployments_client.py")


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """(model, the folder it is saved in by MLflow, with a signature)."""
    mlflow = pytest.importorskip("mlflow.sklearn")
    from mlflow.models import infer_signature

    model = LogisticRegression().fit(ROWS, np.arange(30) % 3)
    folder = tmp_path_factory.mktemp("mlflow") / "saved"
    signature = infer_signature(ROWS, model.predict(ROWS))
    mlflow.save_model(model, folder, signature=signature, serialization_format="cloudpickle")
    conda = yaml.safe_load((folder / "conda.yaml").read_text())
    conda["dependencies"][-1]["pip"].append("no-such-package==1.2")
    (folder / "conda.yaml").write_text(yaml.safe_dump(conda))
    return model, folder


@pytest.fixture(scope="module")
def mlflow_endpoint(client):
    endpoint = ManagedOnlineEndpoint(name="mlflow")
    yield client.online_endpoints.begin_create_or_update(endpoint).result()
    client.online_endpoints.begin_delete("mlflow").result()


def deployment(model, name="blue", **requested):
    size = {"instance_type": "Standard_DS3_v2", "instance_count": 1}
    return ManagedOnlineDeployment(
        name=name, endpoint_name="mlflow", model=model, **size, **requested
    )


def score(client, name, rows, deployment="blue"):
    found = client.online_endpoints.get(name)
    key = client.online_endpoints.get_keys(name).primary_key
    headers = {"Authorization": f"Bearer {key}", "azureml-model-deployment": deployment}
    body = {"input_data": rows.tolist()}
    return requests.post(found.scoring_uri, json=body, headers=headers, timeout=60)


def test_inline_model_is_deployed_without_code_and_predicts(client, saved, mlflow_endpoint):
    model, folder = saved
    made = client.online_deployments.begin_create_or_update(
        deployment(Model(path=str(folder), type="mlflow_model"))
    ).result()
    assert (made.provisioning_state, made.code_configuration) == ("Succeeded", None)
    response = score(client, "mlflow", ROWS)
    assert (response.status_code, response.json()) == (200, model.predict(ROWS).tolist())
    rejected = score(client, "mlflow", ROWS[:, :2])
    assert rejected.status_code == 424
    assert "Shape of input (30, 2) does not match" in rejected.json()["message"]


def test_kubernetes_deployment_without_code_predicts(client, saved):
    model, folder = saved
    cluster = KubernetesCompute(name="mlflow-k8s", namespace="default")
    client.compute.begin_create_or_update(cluster).result()
    endpoint = KubernetesOnlineEndpoint(name="mlflow-k8s", compute="mlflow-k8s")
    client.online_endpoints.begin_create_or_update(endpoint).result()
    client.online_deployments.begin_create_or_update(
        KubernetesOnlineDeployment(
            name="blue",
            endpoint_name="mlflow-k8s",
            model=Model(path=str(folder), type="mlflow_model"),
            instance_count=1,
        )
    ).result()
    assert score(client, "mlflow-k8s", ROWS).json() == model.predict(ROWS).tolist()
    client.online_endpoints.begin_delete("mlflow-k8s").result()


def test_registered_model_reports_its_requirements_and_keeps_its_containers(
    client, saved, mlflow_endpoint
):
    """The conda file that MLmodel names; mlflow itself is served by its small distribution.

    The script's path follows its content: a change of tags starts no container.
    """
    registered = client.models.create_or_update(
        Model(name="mlflow-saved", path=str(saved[1]), type="mlflow_model")
    )
    wanted = deployment(f"azureml:{registered.name}:{registered.version}", "green")
    client.online_deployments.begin_create_or_update(wanted).result()
    log = client.online_deployments.get_logs("green", "mlflow", lines=1000)
    assert "environment: no-such-package: required ==1.2, installed none" in log
    assert "environment: mlflow:" not in log
    wanted.tags = {"stage": "test"}
    client.online_deployments.begin_create_or_update(wanted).result()
    assert client.online_deployments.get("green", "mlflow").tags == {"stage": "test"}
    assert client.online_deployments.get_logs("green", "mlflow", lines=1000) == log


def test_model_of_another_type_is_rejected_by_its_type(client, model, mlflow_endpoint):
    with pytest.raises(
        HttpResponseError, match="of a model of type custom_model, only of"
    ) as raised:
        client.online_deployments.begin_create_or_update(deployment(model.id, "custom"))
    assert raised.value.status_code == 501


def test_mlflow_model_without_its_file_is_rejected(client, folder, mlflow_endpoint):
    wrong = Model(name="no-mlmodel", path=str(folder / "weights"), type="mlflow_model")
    with pytest.raises(HttpResponseError, match="has no file MLmodel") as raised:
        client.online_deployments.begin_create_or_update(deployment(wrong, "wrong"))
    assert raised.value.status_code == 400


def test_environment_of_a_deployment_replaces_that_of_its_mlflow_model(
    client, call, saved, mlflow_endpoint
):
    conda = {"name": "own", "dependencies": ["python", {"pip": ["another-package==3"]}]}
    environment = Environment(name="own-mlflow", image="mcr.microsoft.com/x", conda_file=conda)
    model = Model(path=str(saved[1]), type="mlflow_model")
    wanted = deployment(model, "own", environment=environment)
    client.online_deployments.begin_create_or_update(wanted)
    [found] = [each for each in call("GET", "/workspace").json()["services"]
               if each["name"] == "mlflow"]  # fmt: skip
    [own] = [str(each) for each in found["deployments"] if each["name"] == "own"]
    assert "environment: another-package: required ==3, installed none" in own
    assert "no-such-package" not in own


def test_mlflow_deployments_client_completes_all_calls(client, endpoint, saved, tmp_path):
    """``mlflow.deployments`` with azureml-mlflow, unmodified, in a process of its own."""
    pytest.importorskip("azureml.mlflow")
    client.models.create_or_update(
        Model(name="mlflow-client", path=str(saved[1]), type="mlflow_model")
    )
    names = {
        "subscription_id": local.SUBSCRIPTION,
        "resource_group": local.RESOURCE_GROUP,
        "workspace_name": local.WORKSPACE_NAME,
    }
    (tmp_path / "config.json").write_text(json.dumps(names))
    done = subprocess.run(
        [sys.executable, str(CLIENT), "mlflow-client"],
        cwd=tmp_path,
        env=endpoint.environment() | {"PATH": "", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1].endswith("all calls succeeded")
