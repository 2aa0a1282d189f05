"""Deployments of SDK v2 in real processes: scoring, updates, failures, deletion."""

from __future__ import annotations

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests
from azure.ai.ml.entities import (
    CodeConfiguration,
    KubernetesCompute,
    KubernetesOnlineDeployment,
    KubernetesOnlineEndpoint,
    ManagedOnlineEndpoint,
    OnlineRequestSettings,
    ResourceRequirementsSettings,
    ResourceSettings,
    TargetUtilizationScaleSettings,
)
from azure.core.exceptions import HttpResponseError, ResourceExistsError, ResourceNotFoundError
from generated_requests import app_to_try
from polling import wait_until
from weights_service import WORKSPACE

from mnist_deploy.local.core.endpoints import EndpointSpec
from mnist_deploy.local.rest import state_of
from mnist_deploy.local.v2.endpoints import EndpointOptions


def test_deployment_scores_and_reports_its_configuration(client, shared, model, request_file):
    for named in ({}, {"deployment_name": "blue"}):
        answer = client.online_endpoints.invoke("shared", request_file=request_file, **named)
        assert json.loads(answer) == [321.0]
    found = client.online_deployments.get("blue", "shared")
    assert (found.provisioning_state, found.instance_count) == ("Succeeded", 1)
    assert (found.model, found.instance_type) == (model.id, "Standard_DS1_v2")
    assert (found.environment_variables, found.tags) == ({"WORKER_COUNT": "1"}, {"kind": "weights"})
    assert [each.name for each in client.online_deployments.list("shared")] == ["blue"]
    log = client.online_deployments.get_logs("blue", "shared", lines=1000)
    assert "weights are loaded" in log
    assert len(client.online_deployments.get_logs("blue", "shared", lines=2).splitlines()) == 2
    key = client.online_endpoints.get_keys("shared").primary_key
    headers = {"Authorization": f"Bearer {key}"}
    described = requests.get(shared.openapi_uri, headers=headers, timeout=10)
    assert (described.status_code, described.json()["swagger"]) == (200, "2.0")


def test_deployment_of_an_endpoint_that_is_deleted_meanwhile_is_not_found(tmp_path, monkeypatch):
    requested = {"endpointComputeType": "Managed"}
    with app_to_try(tmp_path) as app:
        endpoints = state_of(app).endpoints
        endpoints.put("endpoint", "a", lambda present: EndpointSpec(other=EndpointOptions()))
        monkeypatch.setattr(endpoints, "change", lambda *_: endpoints.operations.begin("Service"))
        answer = app.test_client().put(
            f"{WORKSPACE}/onlineEndpoints/a/deployments/blue",
            json={"properties": requested},
            headers={"Authorization": f"Bearer {state_of(app).token}"},
            base_url="https://127.0.0.1",
        )
    assert (answer.status_code, answer.json["error"]["code"]) == (404, "ResourceNotFound")


def test_failed_init_ends_the_poller_at_once_with_its_traceback(client, deploy, shared, tmp_path):
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "score.py").write_text("def init(): 1 / 0\ndef run(data): return data\n")
    began = time.monotonic()
    with pytest.raises(HttpResponseError) as failure:
        deploy(
            "shared",
            "red",
            code_configuration=CodeConfiguration(
                code=str(tmp_path / "bad"), scoring_script="score.py"
            ),
        )
    assert time.monotonic() - began < 30  # and never the quarter of an hour that Azure takes
    assert "ResourceNotReady" in failure.value.message
    assert "ZeroDivisionError: division by zero" in failure.value.message
    assert client.online_deployments.get("red", "shared").provisioning_state == "Failed"
    assert "ZeroDivisionError" in client.online_deployments.get_logs("red", "shared", lines=100)
    client.online_deployments.begin_delete("red", "shared").result()
    assert [each.name for each in client.online_deployments.list("shared")] == ["blue"]


@pytest.mark.parametrize(
    ("requested", "reason"),
    [
        ({"model": "weights-v2:99"}, "no model weights-v2:99"),
        ({"environment": "weights-env-v2:99"}, "no environment weights-env-v2:99"),
        ({"environment": "azureml://registries/mine/environments/e/versions/1"}, "registries"),
        ({"model": "azureml://registries/azureml/models/m/versions/1"}, "registries"),
        ({"environment": None}, "has no environment"),
        ({"instance_type": "Standard_NC6s_v3"}, "GPUs"),
        ({"instance_type": "large"}, "'large' is not a VM size of managed online endpoints"),
        ({"instance_type": "Standard_D3_v99"}, r"Expected one of Standard_DS\{1,2,3,4,5\}_v2"),
        ({"code_configuration": None}, "without code_configuration"),
        ({"model_mount_path": "/models"}, "model_mount_path"),
    ],
)
def test_missing_reference_and_unsupported_option_are_rejected_by_name(
    deploy, shared, requested, reason
):
    with pytest.raises(HttpResponseError, match=reason):
        deploy("shared", "green", **requested)


def test_deployment_with_traffic_is_not_deleted(client, shared):
    with pytest.raises(ResourceExistsError, match="blue gets 100 % of the traffic"):
        client.online_deployments.begin_delete("blue", "shared").result()
    with pytest.raises(ResourceNotFoundError, match="no deployment green of endpoint shared"):
        client.online_deployments.get("green", "shared")


def test_request_settings_are_returned_and_kept_by_updates(client, deploy, shared, tmp_path):
    settings = OnlineRequestSettings(
        request_timeout_ms=3000, max_concurrent_requests_per_instance=1, max_queue_wait_ms=1000
    )
    (tmp_path / "score.py").write_text(
        "import time\ndef init(): pass\ndef run(data): time.sleep(float(data))\n"
    )
    code = CodeConfiguration(code=str(tmp_path), scoring_script="score.py")
    made = deploy("shared", "set", request_settings=settings, code_configuration=code)
    assert made.request_settings == settings
    key = client.online_endpoints.get_keys("shared").primary_key
    headers = {"Authorization": f"Bearer {key}", "azureml-model-deployment": "set"}

    def status(seconds: str) -> int:
        answer = requests.post(shared.scoring_uri, data=seconds, headers=headers, timeout=30)
        return answer.status_code

    assert status("5") == 408
    with ThreadPoolExecutor(6) as pool:
        assert set(pool.map(status, ["0.4"] * 6)) == {200, 429}  # two are admitted
    client.online_deployments.begin_delete("set", "shared").result()


def test_kubernetes_endpoint_is_served_by_local_processes(
    client, shared, model, environment, folder, request_file
):
    client.compute.begin_create_or_update(KubernetesCompute(name="k8s", namespace="n")).result()
    assert client.compute.get("k8s").type.lower() == "kubernetes"
    made = client.begin_create_or_update(
        KubernetesOnlineEndpoint(name="on-k8s", compute="k8s")
    ).result()
    deployment = KubernetesOnlineDeployment(
        name="blue",
        endpoint_name="on-k8s",
        model=model.id,
        environment=environment.id,
        code_configuration=CodeConfiguration(code=str(folder / "code"), scoring_script="score.py"),
        instance_count=1,
        scale_settings=TargetUtilizationScaleSettings(min_instances=1, max_instances=3),
        resources=ResourceRequirementsSettings(
            requests=ResourceSettings(cpu="100m", memory="0.5Gi")
        ),
    )
    done = client.begin_create_or_update(deployment).result()
    assert (done.scale_settings.max_instances, done.resources.requests.cpu) == (3, "100m")
    log = client.online_deployments.get_logs("blue", "on-k8s", lines=1000)
    assert "scale_settings: there is no autoscaler here" in log
    made.traffic = {"blue": 100}
    client.begin_create_or_update(made).result()
    answer = client.online_endpoints.invoke("on-k8s", request_file=request_file)
    assert json.loads(answer) == [321.0]
    with pytest.raises(ResourceExistsError, match="k8s is in use: first delete on-k8s"):
        client.compute.begin_delete("k8s").result()
    client.online_endpoints.begin_delete("on-k8s").result()
    client.compute.begin_delete("k8s").result()

    deployment.endpoint_name = "shared"
    with pytest.raises(HttpResponseError, match="shared is a Managed endpoint"):
        client.begin_create_or_update(deployment)


@pytest.mark.processes
def test_scaling_instances_under_load_loses_no_request(client, deploy, tmp_path):
    made = client.online_endpoints.begin_create_or_update(
        ManagedOnlineEndpoint(name="scales", auth_mode="key", traffic={})
    ).result()
    (tmp_path / "score.py").write_text(
        "import os\ndef init(): pass\ndef run(_): return os.getpid()\n"
    )
    code = CodeConfiguration(code=str(tmp_path), scoring_script="score.py")
    # One instance admits 2 * 2 requests, one for each client below; others would get 429.
    settings = OnlineRequestSettings(max_concurrent_requests_per_instance=2)
    wanted = {"code_configuration": code, "request_settings": settings}
    deploy("scales", **wanted)
    made.traffic = {"blue": 100}
    client.online_endpoints.begin_create_or_update(made).result()
    headers = {"Authorization": f"Bearer {client.online_endpoints.get_keys('scales').primary_key}"}
    answers: list[int | str] = []
    over = threading.Event()

    def load(client) -> None:
        while not over.is_set():
            try:
                answer = client.post(made.scoring_uri, "{}", headers=headers, timeout=30)
                answers.append(answer.json() if answer.status_code == 200 else answer.text)
            except requests.RequestException as error:
                answers.append(repr(error))

    def shown(instances: int) -> tuple[int, int]:
        """The numbers of answering processes and of replicas in the log."""
        deploy("scales", **wanted, instance_count=instances)
        assert client.online_deployments.get("blue", "scales").instance_count == instances
        before = len(answers)
        wait_until(lambda: len(answers) > before + 60)
        log = client.online_deployments.get_logs("blue", "scales", lines=100)
        return len(set(answers[before:])), log.count("--- replica ")

    kept = [requests.Session() for _ in range(2)]  # connections that stay, beside new ones
    clients = [threading.Thread(target=load, args=[each]) for each in (*kept, requests, requests)]
    for each in clients:
        each.start()
    try:
        assert [shown(instances) for instances in (1, 3, 1)] == [(1, 0), (3, 3), (1, 0)]
    finally:
        over.set()
        for each in clients:
            each.join()
        for each in kept:
            each.close()
        client.online_endpoints.begin_delete("scales").result()
    assert [each for each in answers if not isinstance(each, int)] == []
    assert len(set(answers)) == 3  # the first has stayed, and no process was restarted
