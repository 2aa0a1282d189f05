"""Services on a cluster of Kubernetes: sized, deployed, replaced, called and deleted as on ACI."""

from __future__ import annotations

import numpy as np
import pytest
from azureml.core.compute import AksCompute, ComputeTarget
from azureml.core.webservice import AciWebservice, AksWebservice, Webservice

import mnist_deploy as md
from mnist_deploy.errors import DeploymentError, DeploymentTimeout

LOCAL = pytest.param("local", marks=pytest.mark.processes)


@pytest.fixture
def ws(request):
    """The mocked workspace, or the one that a test asks for, with a cluster in it."""
    workspace = request.getfixturevalue(f"{getattr(request, 'param', 'mocked')}_workspace")
    cluster = ComputeTarget.create(workspace, "cluster", AksCompute.provisioning_configuration())
    cluster.wait_for_completion()
    yield workspace
    for service in Webservice.list(workspace):
        md.delete_service(service)
    cluster.delete()


def deploy(ws, name: str = "svc", *, cluster="cluster", overwrite: bool = False, **aks):
    return md.deploy_to_aks(
        ws,
        md.fetch_model(ws),
        md.build_inference_config(md.fetch_environment(ws)),
        md.build_aks_config(**aks),
        cluster,
        name,
        overwrite=overwrite,
        timeout=60,
    )


# How large it is


def test_a_replica_is_as_large_as_a_container_instance_and_may_follow_the_load():
    config = md.build_aks_config(0.5, 2, replicas=3)
    assert (config.cpu_cores, config.memory_gb, config.num_replicas) == (0.5, 2, 3)
    assert config.tags == {"data": "MNIST", "method": "sklearn"}
    assert config.description == "Predict MNIST with sklearn"
    assert type(md.build_aks_config(replicas=np.int64(2)).num_replicas) is int
    assert md.build_aks_config(num_replicas=3).num_replicas == 3
    config = md.build_aks_config(autoscale_enabled=True, autoscale_max_replicas=4)
    assert (config.num_replicas, config.autoscale_max_replicas) == (None, 4)


@pytest.mark.parametrize(
    ("aks", "said"),
    [
        ({"memory_gb": 0}, "memory_gb is 0; expected a number above 0"),
        ({"replicas": 0}, "num_replicas"),
        ({"auth_enabled": True, "token_auth_enabled": True}, "cannot both be true"),
        ({"autoscale_max_replicas": 2}, "without enabling autoscaling"),
    ],
)
def test_what_no_replica_can_have(aks, said):
    with pytest.raises(DeploymentError, match=said):
        md.build_aks_config(**aks)
    with pytest.raises(TypeError, match="gpus"):
        md.build_aks_config(gpus=1)


# From deployment to deletion


@pytest.mark.parametrize("ws", ["mocked", "local"], indirect=True)
def test_it_is_deployed_called_and_deleted(ws, mnist_sample, capsys):
    with md.closing_service(deploy(ws, replicas=2)) as service:
        assert isinstance(service, AksWebservice)
        assert (service.state, service.compute_name, service.num_replicas) == (
            "Healthy", "cluster", 2,
        )  # fmt: skip
        assert service.auth_enabled
        labels = md.call_service(service, mnist_sample.images)
        assert (labels == mnist_sample.labels).mean() > 0.8
    assert Webservice.list(ws) == []
    assert "deploying svc" in capsys.readouterr().err


@pytest.mark.parametrize("ws", ["mocked", LOCAL], indirect=True)
def test_a_token_is_fetched_where_one_is_asked_for(ws, mnist_sample):
    service = deploy(ws, auth_enabled=False, token_auth_enabled=True)
    assert len(md.call_service(service, mnist_sample.images[:3])) == 3


def test_the_cluster_can_be_passed_itself_and_must_be_there(ws):
    assert deploy(ws, cluster=AksCompute(ws, "cluster")).compute_name == "cluster"
    made = r"ComputeTarget\.create\(ws, 'nowhere'"
    with pytest.raises(
        DeploymentError, match=f"'nowhere' cannot be had from workspace .*not found.*{made}"
    ):
        deploy(ws, "other", cluster="nowhere")


@pytest.mark.parametrize("ws", ["mocked", LOCAL], indirect=True)
@pytest.mark.parametrize("left_over", ["aks", "aci"])
def deploy_to_aci(ws, **more) -> AciWebservice:
    config = md.build_inference_config(md.fetch_environment(ws))
    return md.deploy_to_aci(ws, md.fetch_model(ws), config, md.build_aci_config(), "svc", **more)


@pytest.mark.parametrize("ws", ["mocked", LOCAL], indirect=True)
@pytest.mark.parametrize("make_left_over", [deploy, deploy_to_aci])
def test_a_left_over_is_replaced_whatever_it_ran_on(ws, make_left_over, capsys):
    make_left_over(ws)
    with pytest.raises(DeploymentError, match=r"already \(Healthy\)\. Pass overwrite=True"):
        deploy(ws)
    service = deploy(ws, replicas=3, overwrite=True)
    assert (type(service), service.num_replicas) == (AksWebservice, 3)
    assert [each.name for each in Webservice.list(ws)] == ["svc"]
    assert "Replacing the service 'svc' (Healthy)" in capsys.readouterr().out
    assert isinstance(deploy_to_aci(ws, overwrite=True), AciWebservice)  # and back again


def test_what_fails_is_told_as_on_aci(mocked_workspace):
    cluster = ComputeTarget.create(
        mocked_workspace, "cluster", AksCompute.provisioning_configuration()
    )
    mocked_workspace.cloud.fail_init("OSError: the model is not readable")
    with pytest.raises(DeploymentError, match=r"its state is Failed\..*init") as raised:
        deploy(mocked_workspace, cluster=cluster)
    assert "OSError: the model is not readable" in raised.value.logs
    mocked_workspace.cloud.never_finish()
    with pytest.raises(DeploymentTimeout, match="Pass a longer timeout"):
        deploy(mocked_workspace, "slow", cluster=cluster)
