"""Notebooks for SDK v2 in the style of Microsoft's, run through ``exec`` unmodified."""

from __future__ import annotations

import pytest
from plain_notebooks import run_notebook, write_notebook
from weights_service import SCRIPT

pytest.importorskip("azure.ai.ml")
pytestmark = pytest.mark.processes

KERNEL = "python310-sdkv2"
FILES = {
    "model/weights.txt": "1 10 100",
    "onlinescoring/score.py": SCRIPT,
    "onlinescoring-2/score.py": SCRIPT.replace("float(", "2 * float("),
    "sample-request.json": '{"data": [[1, 2, 3]]}',
    "environment/conda.yaml": "name: weights\nchannels: [conda-forge]\ndependencies:\n- numpy\n",
}
CONNECT = """
    # import required libraries
    from azure.ai.ml import MLClient
    from azure.ai.ml.entities import (
        CodeConfiguration,
        Environment,
        KubernetesOnlineDeployment,
        KubernetesOnlineEndpoint,
        ManagedOnlineDeployment,
        ManagedOnlineEndpoint,
        Model,
    )
    from azure.identity import DefaultAzureCredential

    # enter details of your AzureML workspace
    subscription_id = "<SUBSCRIPTION_ID>"
    resource_group = "<RESOURCE_GROUP>"
    workspace = "<AML_WORKSPACE_NAME>"
    ml_client = MLClient(DefaultAzureCredential(), subscription_id, resource_group, workspace)
    """
ASSETS = """
    model = Model(path="model/weights.txt")
    env = Environment(
        conda_file="environment/conda.yaml",
        image="mcr.microsoft.com/azureml/openmpi4.1.0-ubuntu20.04:latest",
    )
    """
SAFE_ROLLOUT = [
    CONNECT,
    """
    import datetime
    endpoint_name = "endpt-" + datetime.datetime.now().strftime("%m%d%H%M%S%f")
    endpoint = ManagedOnlineEndpoint(
        name=endpoint_name, description="this is a sample endpoint", auth_mode="key",
        tags={"foo": "bar"},
    )
    endpoint = ml_client.begin_create_or_update(endpoint).result()
    """,
    ASSETS,
    """
    def deploy(name, folder):
        deployment = ManagedOnlineDeployment(
            name=name, endpoint_name=endpoint_name, model=model, environment=env,
            code_configuration=CodeConfiguration(code=folder, scoring_script="score.py"),
            instance_type="Standard_DS3_v2", instance_count=1,
        )
        ml_client.online_deployments.begin_create_or_update(deployment).result()

    deploy("blue", "./onlinescoring")
    # blue deployment takes 100 traffic
    endpoint.traffic = {"blue": 100}
    endpoint = ml_client.begin_create_or_update(endpoint).result()
    """,
    """
    def invoke(**which):
        return ml_client.online_endpoints.invoke(
            endpoint_name=endpoint_name, request_file="sample-request.json", **which
        )

    answers = [invoke(deployment_name="blue")]
    deploy("green", "./onlinescoring-2")
    answers.append(invoke(deployment_name="green"))
    """,
    """
    # test the deployment with mirrored traffic
    endpoint.mirror_traffic = {"green": 10}
    ml_client.begin_create_or_update(endpoint).result()
    for i in range(20):
        assert invoke(deployment_name="blue") == answers[0]
    ml_client.online_deployments.get_logs(name="green", endpoint_name=endpoint_name, lines=50)
    endpoint.mirror_traffic = {"green": 0}
    ml_client.begin_create_or_update(endpoint).result()
    """,
    """
    # a small percentage of live traffic, then all of it
    endpoint.traffic = {"blue": 90, "green": 10}
    ml_client.begin_create_or_update(endpoint).result()
    endpoint.traffic = {"blue": 0, "green": 100}
    ml_client.begin_create_or_update(endpoint).result()
    ml_client.online_deployments.begin_delete(
        name="blue", endpoint_name=endpoint_name
    ).result()
    """,
    """
    import json
    import urllib.request
    found = ml_client.online_endpoints.get(endpoint_name)
    key = ml_client.online_endpoints.get_keys(endpoint_name).primary_key
    headers = {"Content-Type": "application/json", "Authorization": "Bearer " + key}
    body = open("sample-request.json", "rb").read()
    request = urllib.request.Request(found.scoring_uri, body, headers)
    answers.append(urllib.request.urlopen(request).read().decode())
    ml_client.online_endpoints.begin_delete(name=endpoint_name).result()
    print("PROBE" + json.dumps([*answers, found.traffic]))
    """,
]
KUBERNETES = [
    CONNECT,
    """
    from azure.ai.ml import load_compute
    compute_params = [
        {"name": "<COMPUTE_NAME>"}, {"type": "kubernetes"},
        {"resource_id": "/subscriptions/<SUBSCRIPTION_ID>/resourceGroups/<RESOURCE_GROUP>/"
         "providers/Microsoft.ContainerService/managedClusters/<CLUSTER_NAME>"},
    ]
    k8s_compute = load_compute(source=None, params_override=compute_params)
    ml_client.begin_create_or_update(k8s_compute).result()
    """.replace("<COMPUTE_NAME>", "k8s-compute"),
    """
    endpoint_name = "k8s-endpoint"
    endpoint = KubernetesOnlineEndpoint(
        name=endpoint_name, compute="k8s-compute", auth_mode="key", tags={"foo": "bar"}
    )
    endpoint = ml_client.begin_create_or_update(endpoint).result()
    """,
    ASSETS,
    """
    from azure.ai.ml.entities import ResourceRequirementsSettings, ResourceSettings
    blue_deployment = KubernetesOnlineDeployment(
        name="blue", endpoint_name=endpoint_name, model=model, environment=env,
        code_configuration=CodeConfiguration(code="./onlinescoring", scoring_script="score.py"),
        instance_count=1,
        resources=ResourceRequirementsSettings(
            requests=ResourceSettings(cpu="100m", memory="0.5Gi")
        ),
    )
    ml_client.begin_create_or_update(blue_deployment).result()
    endpoint.traffic = {"blue": 100}
    ml_client.begin_create_or_update(endpoint).result()
    """,
    """
    import json
    answer = ml_client.online_endpoints.invoke(endpoint_name, request_file="sample-request.json")
    logs = ml_client.online_deployments.get_logs("blue", endpoint_name, lines=50)
    ml_client.online_endpoints.begin_delete(name=endpoint_name).result()
    print("PROBE" + json.dumps([answer, logs]))
    """,
]


@pytest.fixture
def folder(tmp_path):
    for name, content in FILES.items():
        (tmp_path / "notebooks" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "notebooks" / name).write_text(content)
    return tmp_path / "notebooks"


def test_safe_rollout_moves_the_traffic_to_the_second_deployment(folder, tmp_path):
    write_notebook(folder / "rollout.ipynb", SAFE_ROLLOUT, KERNEL)
    _, probe = run_notebook(folder / "rollout.ipynb", tmp_path / "home", "--bare")
    assert probe == ["[321.0]", "[642.0]", "[642.0]", {"green": 100}]


def test_endpoint_on_kubernetes_answers_and_shows_its_log(folder, tmp_path):
    write_notebook(folder / "kubernetes.ipynb", KUBERNETES, KERNEL)
    _, (answer, logs) = run_notebook(folder / "kubernetes.ipynb", tmp_path / "home", "--bare")
    assert answer == "[321.0]"
    assert "weights are loaded" in logs
