"""The services of a mocked workspace, beyond `test_contract.py`."""

from __future__ import annotations

import numpy as np
import pytest
from azureml.core import Model, Webservice
from azureml.core.compute import AksCompute, ComputeTarget
from azureml.core.webservice import AksWebservice
from azureml.exceptions import WebserviceException

import mnist_deploy as md
from mnist_deploy.testing import mock_workspace

IMAGES = np.zeros((3, 784))


def test_deployment_becomes_healthy_without_a_wait(mocked_workspace, begin):
    service = begin(mocked_workspace)
    assert service.state == "Transitioning"
    service.update_deployment_state()
    assert service.state == "Healthy"


def test_key_may_be_chosen(mocked_workspace, deploy):
    service = deploy(mocked_workspace, auth_enabled=True)
    primary, _ = service.get_keys()
    service.regen_key("Secondary", set_key="a-key-of-my-own")
    assert service.get_keys() == (primary, "a-key-of-my-own")
    assert len(md.post_images(service.scoring_uri, IMAGES, api_key="a-key-of-my-own")) == 3


def test_short_log_is_returned_whole(service):
    lines = service.get_logs().splitlines()
    messages = [line.partition(" mocked - ")[2] for line in lines]
    assert messages == ["the container of svc starts", "init() returned"]
    assert service.get_logs(num_lines=50).splitlines() == lines


def test_model_without_a_pickle_needs_an_answer(
    mocked_workspace, deploy, tmp_path, monkeypatch, cloud
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "weights.bin").write_bytes(b"\1\2")
    (tmp_path / "any.py").write_text("def init(): ...\ndef run(data): return []\n")
    model = Model.register(mocked_workspace, "weights.bin", "weights")
    service = deploy(mocked_workspace, script="any.py", model=model)
    cloud.expect_error(AssertionError)
    with pytest.raises(AssertionError, match="respond_with"):
        md.call_service(service, IMAGES)


class TestOnACluster:
    @pytest.fixture
    def cluster(self, mocked_workspace):
        configuration = AksCompute.provisioning_configuration(agent_count=5)
        return ComputeTarget.create(mocked_workspace, "cluster", configuration)

    @pytest.fixture
    def on_cluster(self, mocked_workspace, begin, cluster):
        def on_cluster(**aks):
            config = AksWebservice.deploy_configuration(**aks)
            return begin(mocked_workspace, config=config, deployment_target=cluster)

        return on_cluster

    def test_service_scales_itself_unless_a_number_is_given(self, mocked_workspace, on_cluster):
        service = on_cluster(autoscale_enabled=True, autoscale_min_replicas=2)
        assert (service.autoscaler.autoscale_enabled, service.num_replicas) == (True, 2)
        for change, expected in (
            ({"num_replicas": 3}, (False, 3)),
            ({"autoscale_enabled": True, "autoscale_min_replicas": 4}, (True, 4)),
        ):
            service.update(**change)
            again = Webservice(mocked_workspace, "svc")
            assert (again.autoscaler.autoscale_enabled, again.num_replicas) == expected
            assert again.autoscaler.max_replicas == 10

    def test_deployment_to_a_deleted_cluster_is_rejected(
        self, mocked_workspace, cluster, on_cluster
    ):
        cluster.delete()
        with pytest.raises(WebserviceException, match="There is no compute cluster"):
            on_cluster()
        assert not mocked_workspace.webservices

    def test_service_uses_keys_or_tokens_but_not_both(self, mocked_workspace, on_cluster):
        service = on_cluster(token_auth_enabled=True)
        assert (service.auth_enabled, service.token_auth_enabled) == (False, True)
        service.update(token_auth_enabled=False)
        again = Webservice(mocked_workspace, "svc")
        assert (again.auth_enabled, again.token_auth_enabled) == (True, False)

    def test_remaining_cluster_fails_the_test(self):
        @mock_workspace(assert_all_deleted=True)
        def leave(ws):
            ComputeTarget.create(ws, "ours", AksCompute.provisioning_configuration())
            configuration = AksCompute.attach_configuration("group", "theirs")
            ComputeTarget.attach(ws, "theirs", configuration)

        with pytest.raises(AssertionError, match=r"Not deleted: the cluster ours\. On Azure"):
            leave()
