"""The REST API behind the mocked workspace, by the public functions of both SDKs.

The local workspace serves the same API by the same code; `test_contract.py` compares the
containers.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from azure.ai.ml import MLClient, command, entities
from azure.core.exceptions import HttpResponseError, ResourceNotFoundError
from azureml.core import Environment, Experiment, Model, ScriptRunConfig, Webservice
from azureml.core.compute import AksCompute, ComputeTarget
from azureml.core.webservice import AciWebservice
from azureml.exceptions import ComputeTargetException, WebserviceException
from tutorial_deployments import deploy, deploy_to_cluster, prepare

import mnist_deploy as md
from mnist_deploy import managed
from mnist_deploy.errors import DeploymentError, EnvironmentNotFound, ModelError


@pytest.fixture
def workspace(mocked_workspace):
    return mocked_workspace


@pytest.fixture
def service(mocked_workspace):
    return deploy(mocked_workspace, "shared", auth_enabled=True)


class TestModels:
    def test_version_of_a_deleted_model_is_not_used_again(self, workspace, folder, name):
        first = Model.register(workspace, "model.pkl", name, tags={"a": "1"}, description="once")
        second = Model.register(workspace, "model.pkl", name, properties={"b": "2"})
        assert (first.version, second.version) == (1, 2)
        newest = md.fetch_model(workspace, name)
        assert (newest.id, newest.tags, newest.properties) == (f"{name}:2", {}, {"b": "2"})
        assert md.fetch_model(workspace, name, version=1).description == "once"
        second.delete()
        assert Model.register(workspace, "model.pkl", name).version == 3

    def test_list_is_filtered_by_name_and_tags(self, workspace, folder, name):
        Model.register(workspace, "model.pkl", name, tags={"data": "x", "who": name})
        Model.register(workspace, "model.pkl", name, tags={"data": "y", "who": name})
        assert [model.version for model in Model.list(workspace, name)] == [2, 1]
        assert [model.version for model in Model.list(workspace, name, latest=True)] == [2]
        tagged = Model.list(workspace, tags=[["data", "x"], "who"])
        assert [model.id for model in tagged] == [f"{name}:1"]
        assert Model.list(workspace, tags=[["who", "nobody"]]) == []

    def test_changed_tags_and_properties_are_stored(self, workspace, folder, name):
        model = Model.register(workspace, "model.pkl", name, tags={"a": "1", "b": "2"})
        model.add_tags({"c": "3"})
        model.remove_tags(["a"])
        model.add_properties({"accuracy": "0.9"})
        model.update(description="better")
        again = Model(workspace, name)
        assert again.tags == {"b": "2", "c": "3"}
        assert again.properties == {"accuracy": "0.9"}
        assert again.description == "better"

    def test_change_of_a_property_is_rejected(self, workspace, folder, name):
        model = Model.register(workspace, "model.pkl", name)
        Model(workspace, name).add_properties({"accuracy": "0.8"})  # unknown to the first object
        with pytest.raises(WebserviceException, match="add"):
            model.add_properties({"accuracy": "0.9"})
        assert Model(workspace, name).properties == {"accuracy": "0.8"}

    def test_tags_changed_without_update_are_not_stored(self, workspace, folder, name):
        registered = Model.register(workspace, "model.pkl", name, tags={"a": "1"})
        fetched = (
            registered,
            Model(workspace, name),
            Model(workspace, name, version=1),
            *Model.list(workspace, name),
        )
        for model in fetched:
            model.tags["a"] = "2"
        assert Model(workspace, name).tags == {"a": "1"}

    def test_download_writes_the_registered_bytes(self, workspace, folder, name):
        model = Model.register(workspace, "model.pkl", name)
        (folder / "model.pkl").write_bytes(b"changed since")
        path = model.download("out")
        assert Path(path).read_bytes() == b"the first content"
        with pytest.raises(WebserviceException, match="already exists"):
            model.download("out")
        assert list(model.get_sas_urls()) == ["model.pkl"]

    def test_folder_is_registered_with_its_files(self, workspace, folder, name):
        (folder / "net" / "deep").mkdir(parents=True)
        (folder / "net" / "a.txt").write_text("a")
        (folder / "net" / "deep" / "b.txt").write_text("b")
        model = Model.register(workspace, "net", name)
        files = {Path(file).as_posix() for file in model.get_sas_urls()}
        assert files == {"net/a.txt", "net/deep/b.txt"}
        path = md.download_model(model, "out")
        assert path.name == "net"
        assert (path / "deep" / "b.txt").read_text() == "b"

    def test_download_of_a_changed_file_is_rejected(self, workspace, folder, name):
        model = Model.register(workspace, "model.pkl", name, properties={"sha256": "0" * 64})
        with pytest.raises(ModelError, match="sha256"):
            md.download_model(model, "out")

    def test_unknown_name_is_rejected(self, workspace, folder, name):
        Model.register(workspace, "model.pkl", f"{name}-gone").delete()
        unknown = ({"name": name}, {"name": name, "version": 3}, {"id": f"{name}:1"})
        for arguments in (*unknown, {"name": f"{name}-gone"}, {"id": f"{name}-gone:1"}):
            with pytest.raises(WebserviceException, match="ModelNotFound"):
                Model(workspace, **arguments)
        with pytest.raises(ModelError, match="Registered are: "):
            md.fetch_model(workspace, name)
        with pytest.raises(ModelError, match=r"Version 99.*sklearn_mnist:1"):
            md.fetch_model(workspace, version=99)

    def test_invalid_registration_is_rejected(self, workspace, folder, name):
        with pytest.raises(FileNotFoundError):
            Model.register(workspace, "missing.pkl", name)
        with pytest.raises(PermissionError):
            Model.register(workspace, "..", name)
        with pytest.raises(WebserviceException, match="model name is invalid"):
            Model.register(workspace, "model.pkl", "no name!")

    def test_deleting_a_deployed_model_is_rejected(self, workspace, service):
        with pytest.raises(WebserviceException):
            md.fetch_model(workspace, version=1).delete()
        assert md.fetch_model(workspace).id == "sklearn_mnist:1"


class TestEnvironments:
    def test_same_definition_creates_no_version(self, workspace, name):
        environment = Environment(name)
        assert environment.register(workspace).version == "1"
        assert environment.register(workspace).version == "1"
        environment.python.conda_dependencies.add_pip_package("msgspec==0.18.6")
        assert environment.register(workspace).version == "2"
        assert md.fetch_environment(workspace, name).version == "2"
        first = md.fetch_environment(workspace, name, version="1")
        assert "msgspec" not in first.python.conda_dependencies.serialize_to_string()
        assert Environment.list(workspace)[name].version == "2"

    def test_requested_version_is_registered(self, workspace, name):
        environment = Environment(name)
        environment.version = "2026-01"
        assert environment.register(workspace).version == "2026-01"
        assert md.fetch_environment(workspace, name).version == "2026-01"

    def test_environment_variables_are_stored(self, workspace, name):
        environment = Environment(name)
        environment.environment_variables = {"MODE": "quiet"}
        environment.register(workspace)
        assert md.fetch_environment(workspace, name).environment_variables == {"MODE": "quiet"}

    @pytest.mark.parametrize("version", [None, "7"])
    def test_unknown_name_is_rejected(self, workspace, name, version):
        with pytest.raises(EnvironmentNotFound, match="Registered are: "):
            md.fetch_environment(workspace, name, version=version)


class TestServices:
    def test_service_is_found_by_name_and_in_lists(self, workspace, service):
        found = Webservice(workspace, service.name)
        assert isinstance(found, AciWebservice)
        assert (found.state, found.scoring_uri) == ("Healthy", service.scoring_uri)
        assert service.name in workspace.webservices
        for query in ({"model_name": "sklearn_mnist"}, {"model_id": "sklearn_mnist:1"}):
            assert service.name in [each.name for each in Webservice.list(workspace, **query)]
        assert Webservice.list(workspace, model_name="none") == []
        with pytest.raises(WebserviceException, match="WebserviceNotFound"):
            Webservice(workspace, "nowhere")

    def test_deployment_to_an_existing_name_is_rejected(self, workspace, service):
        with pytest.raises(DeploymentError, match="overwrite=True"):
            deploy(workspace, service.name)
        with pytest.raises(WebserviceException, match="already"):
            Model.deploy(workspace, service.name, *prepare(workspace))

    def test_second_deployment_is_rejected_without_the_check_of_the_sdk(
        self, workspace, service, monkeypatch
    ):
        monkeypatch.setattr(Webservice, "check_for_existing_webservice", lambda *_, **__: None)
        with pytest.raises(WebserviceException, match="already"):
            Model.deploy(workspace, service.name, *prepare(workspace))

    def test_deployment_of_a_deleted_model_is_rejected(self, workspace, folder, name):
        model = Model.register(workspace, "model.pkl", name)
        model.delete()
        with pytest.raises(WebserviceException, match="ModelNotFound"):
            Model.deploy(workspace, name, [model], *prepare(workspace)[1:])
        assert name not in workspace.webservices

    @pytest.mark.parametrize("wrong", ["Upper", "a_b", "ab", "a" * 33, "9lives"])
    def test_invalid_service_name_is_rejected(self, workspace, wrong):
        with pytest.raises(WebserviceException, match="service name is invalid"):
            Model.deploy(workspace, wrong, *prepare(workspace))


class TestClusters:
    @pytest.fixture
    def cluster(self, workspace, name):
        configuration = AksCompute.provisioning_configuration()
        cluster = ComputeTarget.create(workspace, name, configuration)
        cluster.wait_for_completion()
        return cluster

    def test_cluster_is_created_found_and_deleted(self, workspace, name, cluster):
        assert (cluster.provisioning_state, cluster.agent_count) == ("Succeeded", 3)
        assert not cluster.is_attached
        assert AksCompute(workspace, name).id == cluster.id
        assert isinstance(workspace.compute_targets[name], AksCompute)
        cluster.delete()
        assert name not in workspace.compute_targets
        with pytest.raises(ComputeTargetException, match="ComputeTargetNotFound"):
            AksCompute(workspace, name)
        with pytest.raises(DeploymentError, match=f"'{name}' was not found"):
            deploy_to_cluster(workspace, name, cluster=name)

    def test_cluster_is_attached_and_detached(self, workspace, name):
        configuration = AksCompute.attach_configuration("group", "theirs")
        attached = ComputeTarget.attach(workspace, name, configuration)
        assert attached.is_attached
        assert attached.cluster_resource_id.endswith("/managedClusters/theirs")
        attached.detach()
        assert name not in workspace.compute_targets


class TestEndpoints:
    @pytest.fixture
    def client(self, request):
        return request.getfixturevalue("mocked_client")

    def test_models_of_both_sdks_are_the_same(self, client, workspace, folder, name):
        assert isinstance(client, MLClient)
        for version in ("1", "2"):
            asked = entities.Model(name=name, path="model.pkl", tags={"a": version})
            model = client.models.create_or_update(asked)
            assert (model.version, model.tags) == (version, {"a": version})
        assert [each.version for each in client.models.list(name)] == ["2", "1"]
        assert "sklearn_mnist" in [each.name for each in client.models.list()]
        found = md.fetch_model(workspace, name)
        assert (found.version, found.tags) == (2, {"a": "2"})
        assert Path(found.download("out")).read_bytes() == b"the first content"
        Model.register(workspace, "model.pkl", name)
        model = client.models.get(name, label="latest")
        model.description = "the newest"
        assert client.models.create_or_update(model).version == "3"
        assert md.fetch_model(workspace, name).description == "the newest"
        for unknown in (name, f"{name}-other"):
            with pytest.raises(ResourceNotFoundError):
                client.models.get(unknown, version="9")

    def test_environments_of_both_sdks_are_the_same(self, client, workspace, name):
        for package, version in (("numpy", "1"), ("numpy", "1"), ("msgspec", "2")):
            conda = {"dependencies": ["python=3.11", {"pip": [package]}]}
            asked = entities.Environment(name=name, image="mcr.microsoft.com/x", conda_file=conda)
            made = client.environments.create_or_update(asked)
            assert (made.version, made.conda_file) == (version, conda)
            made.conda_file["dependencies"].append("changed here only")
        assert [each.version for each in client.environments.list(name)] == ["2", "1"]
        assert client.environments.get(name, label="latest").conda_file == conda
        found = md.fetch_environment(workspace, name, version="1")
        assert [*found.python.conda_dependencies.pip_packages] == ["numpy"]
        with pytest.raises(ResourceNotFoundError):
            client.environments.get(name, version="9")

    def test_traffic_to_an_unknown_deployment_is_rejected(self, client, name):
        asked = entities.ManagedOnlineEndpoint(name=name, traffic={"blue": 100})
        with pytest.raises(HttpResponseError, match="deployment blue"):
            client.online_endpoints.begin_create_or_update(asked)
        with pytest.raises(ResourceNotFoundError, match=f"no endpoint {name}"):
            client.online_endpoints.get(name)

    @pytest.mark.parametrize(
        ("traffic", "mirror", "message"),
        [
            ({"blue": 60}, {}, "adds up to 60 %"),
            ({"blue": 100}, {"blue": 10}, "receive both traffic and mirrored traffic"),
            ({}, {"blue": 60}, "At most 50 %"),
        ],
    )
    def test_invalid_traffic_is_rejected(self, client, name, traffic, mirror, message):
        model = client.models.get("sklearn_mnist", label="latest")
        environment = client.environments.get("tutorial-env", label="latest")
        managed.deploy_to_endpoint(client, model, environment, name=name)
        endpoint = client.online_endpoints.get(name)
        endpoint.traffic, endpoint.mirror_traffic = traffic, mirror
        with pytest.raises(HttpResponseError, match=message):
            client.online_endpoints.begin_create_or_update(endpoint)
        assert client.online_endpoints.get(name).traffic == {"blue": 100}

    def test_kubernetes_deployment_to_a_managed_endpoint_is_rejected(self, client, folder, name):
        (folder / "score.py").write_text("def init(): ...\ndef run(data): return []\n")
        client.online_endpoints.begin_create_or_update(
            entities.ManagedOnlineEndpoint(name=name)
        ).result()
        deployment = entities.KubernetesOnlineDeployment(
            name="blue",
            endpoint_name=name,
            model=client.models.get("sklearn_mnist", label="latest").id,
            environment=client.environments.get("tutorial-env", label="latest").id,
            code_configuration=entities.CodeConfiguration(str(folder), "score.py"),
        )
        with pytest.raises(HttpResponseError, match="Managed endpoint"):
            client.online_deployments.begin_create_or_update(deployment)


class TestRuns:
    def test_submitted_run_is_rejected(self, workspace, folder):
        (folder / "train.py").write_text("print(1)")
        config = ScriptRunConfig(source_directory=str(folder), script="train.py")
        with pytest.raises(Exception, match=r"submitted runs in a mocked workspace"):
            Experiment(workspace, "digits").submit(config)

    def test_submitted_job_is_rejected(self, mocked_client):
        job = command(command="python train.py", environment="tutorial-env:1")
        with pytest.raises(HttpResponseError, match="jobs in a mocked workspace") as caught:
            mocked_client.jobs.create_or_update(job)
        assert caught.value.status_code == 501
