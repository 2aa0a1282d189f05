"""Tests of the containers of a workspace, once mocked and once as processes.

`mocked_workspace` and `mocked_client` answer from memory; behind `local_workspace` and
`local_client` the SDKs talk to a control plane, and services are processes that run the script.
"""

from __future__ import annotations

import json

import azureml.core.webservice.webservice
import numpy as np
import pytest
import requests
from azure.core.exceptions import HttpResponseError
from azureml.core import Model, Webservice, Workspace
from azureml.core.compute import AksCompute, ComputeTarget
from azureml.core.webservice import AciWebservice, AksWebservice
from azureml.exceptions import ComputeTargetException, WebserviceException
from tutorial_deployments import deploy, deploy_to_cluster, prepare

import mnist_deploy as md
from mnist_deploy import managed
from mnist_deploy.errors import (
    AuthenticationFailed,
    DeploymentError,
    InputRejected,
    ScoringError,
    ScriptFailed,
    ServiceUnavailable,
)
from mnist_deploy.testing.cloud import Clock

DARK = np.zeros((2, 784))
BROKEN = {
    "init": "def init(): raise RuntimeError('the weights are missing')\ndef run(data): return []\n",
    "run": "def init(): ...\ndef run(data): raise KeyError('no such column')\n",
}

SEVEN = """from azureml_inference_server_http.api.aml_request import rawhttp

def init(): ...

@rawhttp
def run(request): return [7]
"""


@pytest.fixture(params=["mocked", "local"])
def kind(request):
    return request.param


@pytest.fixture
def workspace(kind, request):
    return request.getfixturevalue(f"{kind}_workspace")


@pytest.fixture(autouse=True)
def without_pauses(kind, monkeypatch):
    """The SDK sleeps five seconds between two polls, and after a key is regenerated."""
    if kind == "local":  # which holds its answer until there is one
        monkeypatch.setattr(azureml.core.webservice.webservice, "time", Clock())


@pytest.fixture(scope="module")
def local_service(local_workspace):
    with md.closing_service(deploy(local_workspace, "shared", auth_enabled=True)) as service:
        yield service


@pytest.fixture
def service(kind, request):
    """A healthy service that asks for a key; what changes it is a service of its own."""
    if kind == "local":
        return request.getfixturevalue("local_service")
    return deploy(request.getfixturevalue("mocked_workspace"), "shared", auth_enabled=True)


class TestWorkspace:
    def test_workspace_has_its_fields(self, workspace):
        assert isinstance(workspace, Workspace)
        for field in ("name", "resource_group", "subscription_id", "location"):
            assert isinstance(getattr(workspace, field), str)

    def test_workspace_starts_with_model_and_environment(self, workspace):
        model = md.fetch_model(workspace, version=1)
        assert (model.name, model.version, model.id) == ("sklearn_mnist", 1, "sklearn_mnist:1")
        assert model.tags == {"data": "MNIST", "method": "sklearn"}
        assert set(model.properties) == {"scikit-learn", "sha256"}
        environment = md.fetch_environment(workspace, version="1")
        packages = environment.python.conda_dependencies.serialize_to_string()
        assert "azureml-defaults" in packages
        assert "scikit-learn" in packages
        assert "sklearn_mnist" in workspace.models
        assert "tutorial-env" in workspace.environments


class TestServices:
    def test_service_returns_the_labels_of_its_model(self, service, mnist_sample, tmp_path):
        import joblib

        path = md.download_model(md.fetch_model(service.workspace), tmp_path)
        expected = joblib.load(path).predict(mnist_sample.images)
        np.testing.assert_array_equal(md.call_service(service, mnist_sample.images), expected)
        pixels = np.rint(mnist_sample.images * 255).astype(np.uint8)
        np.testing.assert_array_equal(md.call_service(service, pixels), expected)
        body = json.dumps({"data": mnist_sample.images[:3].tolist()})
        assert service.run(body) == expected[:3].tolist()

    def test_request_without_key_is_rejected(self, service, mnist_sample):
        uri, images = service.scoring_uri, mnist_sample.images[:2]
        primary, secondary = service.get_keys()
        assert primary != secondary
        for key in (primary, secondary):
            assert len(md.post_images(uri, images, api_key=key)) == 2
        for key in (None, "wrong"):
            with pytest.raises(AuthenticationFailed) as caught:
                md.post_images(uri, images, api_key=key)
            assert caught.value.status == 401
        for sent, status in ((f"bearer {primary}", 200), (f"Basic {primary}", 401), (primary, 401)):
            headers = {"Authorization": sent}
            answer = requests.post(uri, json={"data": DARK.tolist()}, headers=headers)
            assert answer.status_code == status

    def test_regenerated_key_holds_at_once(self, service, mnist_sample):
        old, secondary = service.get_keys()
        service.regen_key("Primary")
        new, unchanged = service.get_keys()
        assert new != old
        assert secondary == unchanged
        assert len(md.call_service(service, mnist_sample.images[:2])) == 2
        with pytest.raises(AuthenticationFailed):
            md.post_images(service.scoring_uri, mnist_sample.images[:2], api_key=old)
        with pytest.raises(WebserviceException, match="Primary, Secondary"):
            service.regen_key("Tertiary")

    def test_log_is_returned_by_lines(self, service):
        lines = service.get_logs().splitlines()
        assert lines
        assert service.get_logs(num_lines=1).splitlines() == lines[-1:]

    def test_updated_service_keeps_its_new_options(self, workspace, service):
        service.update(tags={"new": "1"}, description="changed", auth_enabled=False)
        service.wait_for_deployment()
        again = Webservice(workspace, service.name)
        assert (again.tags, again.description) == ({"new": "1"}, "changed")
        assert not again.auth_enabled
        assert len(md.post_images(service.scoring_uri, DARK)) == 2
        service.update(auth_enabled=True)
        service.wait_for_deployment()
        with pytest.raises(AuthenticationFailed):
            md.post_images(service.scoring_uri, DARK)

    def test_live_from_deployment_to_deletion(self, workspace, name, mnist_sample):
        wanted = prepare(workspace, cpu_cores=0.5, memory_gb=1.5, tags={"who": name})
        first = Model.deploy(workspace, name, *wanted)
        assert isinstance(first, AciWebservice)
        assert first.state in ("Transitioning", "Healthy")  # a container here may be that quick
        first.wait_for_deployment()
        assert (first.state, first.error) == ("Healthy", None)
        assert first.scoring_uri.endswith("/score")
        assert [model.id for model in first.models] == ["sklearn_mnist:1"]
        size = first.container_resource_requirements
        assert (size.cpu, size.memory_in_gb) == (0.5, 1.5)
        assert first.environment.name == "tutorial-env"
        assert [each.name for each in Webservice.list(workspace, tags=[["who", name]])] == [name]

        second = deploy(workspace, name, overwrite=True, description="the second")
        assert Webservice(workspace, name).description == "the second"
        assert [each.name for each in Webservice.list(workspace)].count(name) == 1
        md.delete_service(second)
        assert name not in workspace.webservices
        with pytest.raises(ServiceUnavailable):
            md.call_service(first, mnist_sample.images[:1], retry_timeout=0)
        md.delete_service(first)  # it is gone, which is what was wanted


class TestClusters:
    @pytest.fixture
    def cluster(self, workspace, name):
        configuration = AksCompute.provisioning_configuration()
        cluster = ComputeTarget.create(workspace, name, configuration)
        cluster.wait_for_completion()
        return cluster

    def test_service_on_a_cluster_accepts_keys_or_tokens(self, workspace, name, cluster):
        service = deploy_to_cluster(workspace, name, cluster)
        assert isinstance(service, AksWebservice)
        assert (service.state, service.compute_name) == ("Healthy", name)
        assert (service.num_replicas, service.namespace) == (1, "default")
        assert not service.autoscaler.autoscale_enabled
        assert name in [each.name for each in AksWebservice.list(workspace)]
        uri, (key, _) = service.scoring_uri, service.get_keys()
        assert len(md.post_images(uri, DARK, api_key=key)) == 2
        assert len(md.call_service(service, DARK)) == 2
        with pytest.raises(AuthenticationFailed):  # there are keys, unless something else is said
            md.post_images(uri, DARK)
        with pytest.raises(ComputeTargetException, match=f"first delete {name}"):
            cluster.delete()

        service.update(auth_enabled=False, token_auth_enabled=True, description="with tokens")
        service.wait_for_deployment()
        token = service.get_access_token()
        assert token.refresh_after < token.expiry_on
        assert len(md.post_images(uri, DARK, api_key=token.access_token)) == 2
        with pytest.raises(AuthenticationFailed):
            md.post_images(uri, DARK, api_key=key)
        again = Webservice(workspace, name)
        assert (again.description, again.token_auth_enabled) == ("with tokens", True)
        md.delete_service(service)
        cluster.delete()


class TestEndpoints:
    """What `mnist_deploy.managed` does with SDK v2."""

    @pytest.fixture
    def client(self, kind, request):
        return request.getfixturevalue(f"{kind}_client")

    def deploy(self, client, name, **options):
        model = client.models.get("sklearn_mnist", label="latest")
        environment = client.environments.get("tutorial-env", label="latest")
        return managed.deploy_to_endpoint(client, model, environment, name=name, **options)

    def test_live_from_deployment_to_deletion(self, client, kind, folder, name, mnist_sample):
        images = mnist_sample.images[:20]
        endpoint = self.deploy(client, name, instance_type="Standard_DS1_v2")
        assert endpoint.traffic == {"blue": 100}
        endpoint.tags["changed"] = "here only"
        (endpoint,) = (each for each in client.online_endpoints.list() if each.name == name)
        assert not client.online_endpoints.get(name).tags
        labels = managed.call_endpoint(client, endpoint, images)
        assert (labels == mnist_sample.labels[:20]).mean() > 0.7
        keys = client.online_endpoints.get_keys(name)
        assert keys.primary_key != keys.secondary_key
        assert len(md.post_images(endpoint.scoring_uri, images, api_key=keys.secondary_key)) == 20
        for key in (None, "wrong"):
            with pytest.raises(AuthenticationFailed):
                md.post_images(endpoint.scoring_uri, images, api_key=key)
        with pytest.raises(InputRejected, match="784"):
            managed.call_endpoint(client, endpoint, np.zeros((2, 13)))

        (folder / "seven.py").write_text(SEVEN)  # like blue, it takes IDX files
        if kind == "mocked":
            client.cloud.respond_with(lambda images: [7], service=f"{name}/green")
        (blue,) = {*managed.call_endpoint(client, endpoint, DARK)}
        assert blue != 7
        green = {"entry_script": "seven.py", "deployment": "green"}
        endpoint = self.deploy(client, name, **green, traffic=50)
        assert endpoint.traffic == {"blue": 50, "green": 50}
        dark = np.zeros((30, 784))
        assert {*managed.call_endpoint(client, endpoint, dark, batch_size=1)} == {7, blue}
        named = managed.call_endpoint(client, endpoint, dark, batch_size=1, deployment="green")
        assert {*named} == {7}

        with pytest.raises(HttpResponseError, match="50 % of the traffic"):
            client.online_deployments.begin_delete("green", name).result()
        endpoint = self.deploy(client, name, **green)
        assert endpoint.traffic == {"blue": 0, "green": 100}
        client.online_deployments.begin_delete("blue", name).result()
        assert [each.name for each in client.online_deployments.list(name)] == ["green"]
        managed.delete_endpoint(client, endpoint)
        managed.delete_endpoint(client, endpoint)  # it is gone, which is what was wanted
        with pytest.raises(AuthenticationFailed, match=f"no endpoint {name}"):
            managed.call_endpoint(client, endpoint, images)
        with pytest.raises(ServiceUnavailable):
            md.post_images(endpoint.scoring_uri, images, retry_timeout=0)

    def test_deployment_fails_if_init_raises(self, client, kind, folder, name):
        (folder / "broken.py").write_text(BROKEN["init"])
        if kind == "mocked":
            client.cloud.fail_init("RuntimeError: the weights are missing")
        with pytest.raises(DeploymentError, match="the weights are missing") as caught:
            self.deploy(client, name, entry_script="broken.py")
        assert caught.value.state == "Failed"
        assert "the weights are missing" in caught.value.logs
        assert client.online_deployments.get("blue", name).provisioning_state == "Failed"
        endpoint = client.online_endpoints.get(name)
        for deployment, status in (("blue", 502), (None, 404)):
            with pytest.raises(ScoringError) as caught:
                managed.call_endpoint(client, endpoint, DARK, deployment=deployment)
            assert caught.value.status == status
        managed.delete_endpoint(client, endpoint)


class TestBrokenScripts:
    def test_service_fails_if_init_raises(self, kind, workspace, folder, name):
        (folder / "broken.py").write_text(BROKEN["init"])
        if kind == "mocked":
            workspace.cloud.fail_init("RuntimeError: the weights are missing")
        with pytest.raises(DeploymentError, match="the weights are missing") as caught:
            deploy(workspace, name, "broken.py")
        assert caught.value.state == "Failed"
        assert "the weights are missing" in caught.value.logs
        service = Webservice(workspace, name)
        assert service.state == "Failed"
        assert service.error["message"]
        with pytest.raises(WebserviceException):
            service.wait_for_deployment()
        with pytest.raises(ServiceUnavailable):
            md.call_service(service, DARK, retry_timeout=0)
        md.delete_service(service)

    def test_response_is_500_if_run_raises(self, kind, workspace, folder, name):
        (folder / "broken.py").write_text(BROKEN["run"])
        if kind == "mocked":
            workspace.cloud.respond_with(KeyError("no such column"))
        with md.closing_service(deploy(workspace, name, "broken.py")) as service:
            with pytest.raises(ScriptFailed) as caught:
                md.call_service(service, DARK)
            assert caught.value.status == 500
            assert "no such column" in service.get_logs()
