"""The calls of ``mlflow.deployments`` as Microsoft's notebooks make them; a model is the argument.

Article "Deploy MLflow models to online endpoints", section on the MLflow SDK.
"""

from __future__ import annotations

import json
import sys

import mlflow
import numpy as np
import pandas as pd
from azure.ai.ml import MLClient
from azure.identity import DefaultAzureCredential
from mlflow.deployments import get_deploy_client


def write(name: str, **settings: object) -> str:
    with open(name, "w") as file:
        json.dump(settings, file)
    return name


def main(model: str) -> None:
    ml_client = MLClient.from_config(DefaultAzureCredential())
    mlflow.set_tracking_uri(ml_client.workspaces.get(ml_client.workspace_name).mlflow_tracking_uri)
    client = get_deploy_client(mlflow.get_tracking_uri())
    rows = pd.DataFrame(np.eye(4), columns=["a", "b", "c", "d"])

    config = write("endpoint.json", auth_mode="key", identity={"type": "system_assigned"})
    created = client.create_endpoint("mlflow-client", config={"endpoint-config-file": config})
    assert created["name"] == "mlflow-client", created
    config = write("deployment.json", instance_type="Standard_DS3_v2", instance_count=1)
    deployed = client.create_deployment(
        "blue",
        f"models:/{model}/1",
        endpoint="mlflow-client",
        config={"deploy-config-file": config},
    )
    assert (deployed["name"], deployed["flavor"]) == ("blue", "python_function"), deployed
    config = write("traffic.json", traffic={"blue": 100})
    client.update_endpoint("mlflow-client", config={"endpoint-config-file": config})
    assert client.get_endpoint("mlflow-client")["properties"]["traffic"] == {"blue": 100}

    labels = client.predict(endpoint="mlflow-client", df=rows.to_numpy())
    assert len(labels) == 4, labels
    named = client.predict(endpoint="mlflow-client", deployment_name="blue", df=rows)
    assert named.equals(labels), named

    config = write("update.json", instance_type="Standard_DS3_v2", description="changed")
    client.update_deployment(
        "blue", endpoint="mlflow-client", config={"deploy-config-file": config}
    )
    changed = client.get_deployment("blue", "mlflow-client")
    assert changed["properties"]["description"] == "changed", changed
    assert [each["name"] for each in client.list_deployments("mlflow-client")] == ["blue"]
    assert "mlflow-client" in [each["name"] for each in client.list_endpoints()]
    client.delete_deployment("blue", "mlflow-client")
    assert client.list_deployments("mlflow-client") == []
    client.delete_endpoint("mlflow-client")
    assert "mlflow-client" not in [each["name"] for each in client.list_endpoints()]
    print("all calls succeeded")


if __name__ == "__main__":
    main(sys.argv[1])
