"""Services on AKS, created, changed and called by the genuine SDK."""

from __future__ import annotations

import time

import pytest
import requests
from azureml.core import Model
from azureml.core.compute import AksCompute, ComputeTarget
from azureml.core.webservice import AksEndpoint, AksWebservice, Webservice
from azureml.exceptions import ComputeTargetException, WebserviceException
from weights_service import make_inference_config

SCRIPT = "import os\ndef init(): pass\ndef run(raw): return {answer}\n"


@pytest.fixture(scope="module")
def cluster(local_ws):
    made = ComputeTarget.create(local_ws, "cluster", AksCompute.provisioning_configuration())
    made.wait_for_completion(show_output=True)
    yield made
    made.delete()


@pytest.fixture
def deploy(local_ws, cluster, tmp_path):
    deployed = []

    def do(name, answer="1", config=None, **more):
        service = Model.deploy(
            local_ws,
            name,
            [],
            make_inference_config(tmp_path, SCRIPT.format(answer=answer)),
            config or AksWebservice.deploy_configuration(num_replicas=1, memory_gb=1),
            cluster,
            **more,
        )
        deployed.append(service)
        service.wait_for_deployment(show_output=True)
        return service

    yield do
    for service in deployed:
        service.delete()


# Clusters


def test_cluster_is_registered_and_its_limits_are_reported(local_ws, cluster):
    seen = AksCompute(local_ws, "cluster")
    assert isinstance(ComputeTarget(local_ws, "cluster"), AksCompute)
    assert (seen.provisioning_state, seen.get_status()) == ("Succeeded", "Succeeded")
    assert "without machines" in seen.description
    assert "cluster" in [each.name for each in ComputeTarget.list(local_ws)]
    assert local_ws.compute_targets["cluster"].agent_count == 3
    assert seen.serialize()["properties"]["computeType"] == "AKS"
    with pytest.raises(ComputeTargetException, match=r"(?s)501.*credentials"):
        cluster.get_credentials()
    with pytest.raises(ComputeTargetException, match="ComputeTargetNotFound"):
        AksCompute(local_ws, "missing")  # tutorials catch this


def test_cluster_is_attached_updated_and_detached(local_ws):
    configuration = AksCompute.attach_configuration(resource_group="g", cluster_name="mine")
    configuration.enable_ssl(leaf_domain_label="digits")
    attached = ComputeTarget.attach(local_ws, "mine", configuration)
    attached.wait_for_completion()
    seen = AksCompute(local_ws, "mine")
    assert seen.cluster_resource_id.endswith("/managedClusters/mine")
    assert (seen.is_attached, seen.ssl_configuration.status) == (True, "Auto")
    seen.detach()
    with pytest.raises(ComputeTargetException, match="NotFound"):
        AksCompute(local_ws, "mine")


@pytest.mark.parametrize(
    ("name", "requested", "word"),
    [
        ("vnet", {"vnet_name": "v", "vnet_resourcegroup_name": "g", "subnet_name": "s",
                  "service_cidr": "10.0.0.0/16", "dns_service_ip": "10.0.0.10",
                  "docker_bridge_cidr": "172.17.0.1/16"}, "vnet_name"),
        ("gpus", {"vm_size": "Standard_NC6"}, "GPUs"),
    ],
)  # fmt: skip
def test_unsupported_cluster_option_is_rejected_by_name(local_ws, name, requested, word):
    with pytest.raises(ComputeTargetException, match=f"(?s)501.*{word}"):
        ComputeTarget.create(local_ws, name, AksCompute.provisioning_configuration(**requested))


# Services


def test_service_requires_keys_and_has_replicas(local_ws, cluster, deploy, capsys):
    config = AksWebservice.deploy_configuration(
        num_replicas=2, cpu_cores=0.5, memory_gb=1, memory_gb_limit=1.5, tags={"a": "b"},
        scoring_timeout_ms=1500, namespace="digits", period_seconds=5,
    )  # fmt: skip
    service = deploy("replicated", "[os.getpid(), os.environ['SCORING_TIMEOUT_MS']]", config)
    shown = capsys.readouterr().out
    for note in ("cluster has no machines", "no namespace digits is created"):
        assert note in shown
    seen = Webservice(local_ws, "replicated")
    assert isinstance(seen, AksWebservice)
    assert (seen.state, seen.auth_enabled, seen.num_replicas) == ("Healthy", True, 2)
    assert (seen.compute_name, seen.scoring_timeout_ms) == ("cluster", 1500)
    assert seen.deployment_status["availableReplicas"] == 2
    assert seen.container_resource_requirements.memory_in_gb_limit == 1.5
    assert (seen.autoscaler.autoscale_enabled, seen.namespace) == (False, "digits")
    assert requests.post(seen.scoring_uri, "{}", timeout=10).status_code == 401
    answers = {tuple(service.run("{}")) for _ in range(30)}
    assert (len(answers), {limit for _, limit in answers}) == (2, {"1500"})
    log = service.get_logs()
    assert "--- replica 1 of 2, Healthy ---" in log
    assert "--- replica 2 of 2, Healthy ---" in log
    assert [s.name for s in Webservice.list(local_ws, compute_type="AKS")] == ["replicated"]
    with pytest.raises(Exception, match="first delete replicated"):
        cluster.delete()

    service.update(num_replicas=1, tags={"c": "d"}, description="fewer")
    service.wait_for_deployment()
    seen = Webservice(local_ws, "replicated")
    assert (seen.num_replicas, seen.tags, seen.description) == (1, {"c": "d"}, "fewer")
    assert len({tuple(service.run("{}")) for _ in range(10)}) == 1


@pytest.mark.processes
def test_autoscaled_service_runs_the_minimum_of_replicas_with_a_warning(local_ws, deploy, capsys):
    service = deploy("scaled", config=AksWebservice.deploy_configuration(memory_gb=1))
    assert (
        "there is no autoscaler here: the service keeps its 1 replicas" in capsys.readouterr().out
    )
    seen = Webservice(local_ws, "scaled")
    assert (seen.autoscaler.autoscale_enabled, seen.num_replicas) == (True, 1)
    service.update(autoscale_enabled=True, autoscale_min_replicas=2)
    service.wait_for_deployment()
    assert Webservice(local_ws, "scaled").num_replicas == 2
    service.update(num_replicas=1)
    service.wait_for_deployment()
    seen = Webservice(local_ws, "scaled")
    assert (seen.autoscaler.autoscale_enabled, seen.num_replicas) == (False, 1)


def test_token_is_authorized_until_it_expires(local_ws, deploy, call, mms):
    config = AksWebservice.deploy_configuration(
        num_replicas=1, memory_gb=1, auth_enabled=False, token_auth_enabled=True
    )
    service = deploy("tokens", "7", config)
    assert service.run("{}") == 7
    token = service.get_access_token()
    remaining = token.refresh_after.timestamp() - time.time()
    assert 0 < remaining < token.expiry_on.timestamp() - time.time()

    def status(offered: str) -> int:
        headers = {"Authorization": f"Bearer {offered}"}
        return requests.post(service.scoring_uri, "{}", headers=headers, timeout=10).status_code

    keys = call("POST", f"{mms}/services/tokens/listkeys").json()
    assert [status(each) for each in (token.access_token, keys["primaryKey"], "x")] == [
        200,
        401,
        401,
    ]
    service.update(token_auth_enabled=False, auth_enabled=True)
    assert [status(each) for each in (token.access_token, keys["primaryKey"])] == [401, 200]
    answer = call("POST", f"{mms}/services/tokens/token")
    assert (answer.status_code, answer.json()["code"]) == (400, "InvalidAuthentication")


@pytest.mark.parametrize(
    ("more", "word"),
    [
        ({"gpu_cores": 1}, "501.*gpu_cores"),
        ({"collect_model_data": True}, "501.*collect_model_data"),
        ({"num_replicas": 99}, "400.*at most 16"),
        ({"primary_key": "schlüssel"}, "400.*ASCII"),
    ],
)
def test_unsupported_service_option_is_rejected_by_name(deploy, more, word):
    config = AksWebservice.deploy_configuration(**{"num_replicas": 1, **more})
    with pytest.raises(WebserviceException, match=f"(?s){word}"):
        deploy("too-much", config=config)


def test_service_without_a_cluster_is_rejected(local_ws, tmp_path):
    config = AksWebservice.deploy_configuration(compute_target_name="missing")
    with pytest.raises(WebserviceException, match="missing"):
        Model.deploy(local_ws, "nowhere", [], make_inference_config(tmp_path), config)


# Versions of an endpoint


@pytest.mark.processes
def test_traffic_is_split_between_versions(local_ws, cluster, tmp_path, call, mms):
    def inference(answer: str):
        return make_inference_config(tmp_path, SCRIPT.format(answer=f"'{answer}'"))

    def seen() -> dict:
        endpoint = Webservice(local_ws, "versions")
        return {
            name: (version.traffic_percentile, version.is_default, version.version_type)
            for name, version in endpoint.versions.items()
        }

    def answers(count: int = 40) -> set:
        headers = {"Authorization": f"Bearer {endpoint.get_keys()[0]}"}
        requested = (requests.post(endpoint.scoring_uri, "{}", headers=headers, timeout=10)
                 for _ in range(count))  # fmt: skip
        return {answer.json() for answer in requested}

    config = AksEndpoint.deploy_configuration(
        num_replicas=1, memory_gb=1, version_name="one", traffic_percentile=20, tags={"a": "b"}
    )
    endpoint = Model.deploy(local_ws, "versions", [], inference("one"), config, cluster)
    endpoint.wait_for_deployment()
    assert isinstance(Webservice(local_ws, "versions"), AksEndpoint)
    assert seen() == {"one": (100, True, "Control")}
    assert answers(5) == {"one"}

    endpoint.create_version(
        "two", num_replicas=1, models=[], inference_config=inference("two"),
        traffic_percentile=50,
    )  # fmt: skip
    endpoint.wait_for_deployment()
    assert seen() == {"one": (50, True, "Control"), "two": (50, False, "Treatment")}
    assert answers() == {"one", "two"}
    assert "=== version two ===" in endpoint.get_logs()
    for name in ("one", "two"):  # also by its name, whatever its share
        headers = {"Authorization": f"Bearer {endpoint.get_keys()[0]}",
                   "azureml-model-deployment": name}  # fmt: skip
        answer = requests.post(endpoint.scoring_uri, "{}", headers=headers, timeout=10)
        assert answer.json() == name

    with pytest.raises(WebserviceException, match="Make another version the default"):
        endpoint.delete_version("one")
    endpoint.update_version("two", is_default=True, is_control_version_type=True)
    endpoint.wait_for_deployment()
    endpoint.update_version("one", traffic_percentile=0, tags={"old": "yes"})
    endpoint.wait_for_deployment()
    assert seen() == {"one": (0, False, "Treatment"), "two": (100, True, "Control")}
    assert answers(10) == {"two"}
    patch = [{"op": "replace", "path": "/kvTags", "value": {"c": "d"}}]
    call("PATCH", f"{mms}/services/versions", json=patch)  # the SDK's own update() is broken
    endpoint.delete_version("one")
    endpoint.wait_for_deployment()
    assert (seen(), answers(5)) == ({"two": (100, True, "Control")}, {"two"})
    assert Webservice(local_ws, "versions").tags == {"c": "d"}
    address = endpoint.scoring_uri
    endpoint.delete()
    with pytest.raises(requests.ConnectionError):
        requests.post(address, "{}", timeout=5)
