"""The services of a mocked workspace, where the contract suite does not look."""

from __future__ import annotations

import numpy as np
import pytest
from azureml.core import Model, Webservice
from azureml.core.compute import AksCompute, ComputeTarget
from azureml.core.webservice import AksWebservice
from azureml.exceptions import ComputeTargetException

import mnist_deploy as md
from mnist_deploy.errors import AuthenticationFailed, DeploymentError
from mnist_deploy.testing import mock_workspace

IMAGES = np.zeros((3, 784))


def test_a_deployment_can_be_watched_instead_of_waited_for(mocked_workspace):
    inference_config = md.build_inference_config(md.fetch_environment(mocked_workspace))
    arguments = [md.fetch_model(mocked_workspace)], inference_config, md.build_aci_config()
    service = Model.deploy(mocked_workspace, "svc", *arguments)
    assert service.state == "Transitioning"
    service.update_deployment_state()
    assert service.state == "Healthy"


def test_keys_can_be_chosen(mocked_workspace, deploy):
    service = deploy(mocked_workspace, auth_enabled=True)
    primary, _ = service.get_keys()
    service.regen_key("Secondary", set_key="a key of my own")
    assert service.get_keys() == (primary, "a key of my own")
    assert len(md.post_images(service.scoring_uri, IMAGES, api_key="a key of my own")) == 3


def test_a_short_log_comes_whole(mocked_workspace, deploy):
    service = deploy(mocked_workspace)
    lines = service.get_logs().splitlines()
    assert [line.partition(" mocked - ")[2] for line in lines] == [
        "the container of svc starts",
        "init() returned",
    ]
    assert service.get_logs(num_lines=50).splitlines() == lines


def test_a_model_without_a_pickle_needs_to_be_told_what_to_answer(
    mocked_workspace, tmp_path, monkeypatch, cloud
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "weights.bin").write_bytes(b"\1\2")
    model = Model.register(mocked_workspace, "weights.bin", "weights")
    (tmp_path / "any.py").write_text("def init(): ...\ndef run(data): return []\n")
    inference_config = md.build_inference_config(md.fetch_environment(mocked_workspace), "any.py")
    service = md.deploy_to_aci(mocked_workspace, model, inference_config, md.build_aci_config())
    cloud.expect_error(AssertionError)
    with pytest.raises(AssertionError, match="answer_with"):
        md.call_service(service, IMAGES)


class TestOnACluster:
    @pytest.fixture
    def cluster(self, mocked_workspace):
        configuration = AksCompute.provisioning_configuration(agent_count=3)
        cluster = ComputeTarget.create(mocked_workspace, "cluster", configuration)
        cluster.wait_for_completion()
        return cluster

    def deploy(self, ws, cluster, **aks):
        inference_config = md.build_inference_config(md.fetch_environment(ws))
        config = md.build_aks_config(**aks)
        return md.deploy_to_aks(ws, md.fetch_model(ws), inference_config, config, cluster, "svc")

    def test_that_is_created_found_and_deleted(self, mocked_workspace, cluster):
        assert (cluster.provisioning_state, cluster.agent_count) == ("Succeeded", 3)
        assert list(mocked_workspace.compute_targets) == ["cluster"]
        assert AksCompute(mocked_workspace, "cluster").id == cluster.id
        cluster.delete()
        with pytest.raises(ComputeTargetException, match="ComputeTargetNotFound"):
            AksCompute(mocked_workspace, "cluster")

    def test_or_attached(self, mocked_workspace):
        configuration = AksCompute.attach_configuration("group", "theirs")
        attached = ComputeTarget.attach(mocked_workspace, "mine", configuration)
        assert attached.is_attached
        assert attached.cluster_resource_id.endswith("/theirs")
        attached.detach()
        assert not mocked_workspace.compute_targets

    def test_of_another_kind_is_not_simulated(self, mocked_workspace):
        from azureml.core.compute import AmlCompute

        configuration = AmlCompute.provisioning_configuration("STANDARD_D2_V2", max_nodes=1)
        with pytest.raises(NotImplementedError, match="PUT computes/cpu"):
            ComputeTarget.create(mocked_workspace, "cpu", configuration)

    def test_a_service_asks_for_a_key(self, mocked_workspace, cluster):
        service = self.deploy(mocked_workspace, cluster, replicas=2)
        assert isinstance(service, AksWebservice)
        assert (service.state, service.compute_name, service.num_replicas) == (
            "Healthy", "cluster", 2,
        )  # fmt: skip
        assert len(md.call_service(service, IMAGES)) == 3
        with pytest.raises(AuthenticationFailed):
            md.post_images(service.scoring_uri, IMAGES)
        assert [each.name for each in AksWebservice.list(mocked_workspace)] == ["svc"]
        md.delete_service(service)
        assert not mocked_workspace.webservices

    def test_or_for_a_token(self, mocked_workspace, cluster):
        service = self.deploy(
            mocked_workspace, cluster, auth_enabled=False, token_auth_enabled=True
        )
        token = service.get_access_token()
        assert token.expiry_on > token.refresh_after
        assert len(md.post_images(service.scoring_uri, IMAGES, api_key=token.access_token)) == 3
        with pytest.raises(AuthenticationFailed):
            md.post_images(service.scoring_uri, IMAGES, api_key=service.get_keys()[0])

    def test_a_service_can_be_scaled(self, mocked_workspace, cluster):
        service = self.deploy(mocked_workspace, cluster)
        service.update(num_replicas=3, autoscale_enabled=False, description="three")
        again = Webservice(mocked_workspace, "svc")
        assert (again.num_replicas, again.description) == (3, "three")
        assert not again.autoscaler.autoscale_enabled
        assert again.autoscaler.max_replicas == 10
        with pytest.raises(NotImplementedError, match="namespace"):
            service.update(namespace="other")

    def test_that_is_not_there(self, mocked_workspace):
        with pytest.raises(DeploymentError, match="'nowhere' cannot be had"):
            self.deploy(mocked_workspace, "nowhere")

    def test_that_is_left_is_named(self):
        @mock_workspace(assert_all_deleted=True)
        def leave(ws):
            ComputeTarget.create(ws, "cluster", AksCompute.provisioning_configuration())
            configuration = AksCompute.attach_configuration("group", "theirs")
            ComputeTarget.attach(ws, "attached", configuration)

        with pytest.raises(AssertionError, match="Not deleted: the cluster cluster\\. On Azure"):
            leave()
