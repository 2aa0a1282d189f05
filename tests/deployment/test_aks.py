"""`build_aks_config` and `deploy_to_aks`: as on ACI, on a Kubernetes cluster."""

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
    """The mocked workspace, or the one of the parameter, with a cluster."""
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


# --- the size of a replica ---


def test_aks_config_has_size_replicas_and_autoscaling():
    config = md.build_aks_config(0.5, 2, replicas=3)
    assert (config.cpu_cores, config.memory_gb, config.num_replicas) == (0.5, 2, 3)
    assert (config.tags, config.description) == (None, "")
    assert type(md.build_aks_config(replicas=np.int64(2)).num_replicas) is int
    assert md.build_aks_config(num_replicas=3).num_replicas == 3
    config = md.build_aks_config(autoscale_enabled=True, autoscale_max_replicas=4)
    assert (config.num_replicas, config.autoscale_max_replicas) == (None, 4)


@pytest.mark.parametrize(
    ("aks", "message"),
    [
        ({"memory_gb": 0}, "memory_gb is 0; expected a number above 0"),
        ({"replicas": 0}, "num_replicas"),
        ({"auth_enabled": True, "token_auth_enabled": True}, "cannot both be true"),
        ({"autoscale_max_replicas": 2}, "without enabling autoscaling"),
    ],
)
def test_invalid_aks_config_is_rejected(aks, message):
    with pytest.raises(DeploymentError, match=message):
        md.build_aks_config(**aks)
    with pytest.raises(TypeError, match="gpus"):
        md.build_aks_config(gpus=1)


# --- deployment to deletion ---


@pytest.mark.parametrize("ws", ["mocked", "local"], indirect=True)
def test_service_is_deployed_called_and_deleted(ws, mnist_sample, capsys):
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
def test_call_service_fetches_a_token(ws, mnist_sample):
    service = deploy(ws, auth_enabled=False, token_auth_enabled=True)
    assert len(md.call_service(service, mnist_sample.images[:3])) == 3


def test_cluster_is_an_object_or_a_name_and_must_exist(ws):
    assert deploy(ws, cluster=AksCompute(ws, "cluster")).compute_name == "cluster"
    advice = r"ComputeTarget\.create\(ws, 'nowhere'"
    with pytest.raises(
        DeploymentError, match=f"'nowhere' was not found in workspace .*not found.*{advice}"
    ):
        deploy(ws, "other", cluster="nowhere")


def deploy_to_aci(ws, **more) -> AciWebservice:
    config = md.build_inference_config(md.fetch_environment(ws))
    return md.deploy_to_aci(ws, md.fetch_model(ws), config, md.build_aci_config(), "svc", **more)


@pytest.mark.parametrize("ws", ["mocked", LOCAL], indirect=True)
@pytest.mark.parametrize("deploy_existing", [deploy, deploy_to_aci])
def test_overwrite_replaces_a_service_on_aks_or_aci(ws, deploy_existing, capsys):
    deploy_existing(ws)
    with pytest.raises(DeploymentError, match=r"already \(Healthy\)\. Pass overwrite=True"):
        deploy(ws)
    service = deploy(ws, replicas=3, overwrite=True)
    assert (type(service), service.num_replicas) == (AksWebservice, 3)
    assert [each.name for each in Webservice.list(ws)] == ["svc"]
    assert "Replacing the service 'svc' (Healthy)" in capsys.readouterr().out
    assert isinstance(deploy_to_aci(ws, overwrite=True), AciWebservice)


def test_failures_are_reported_as_on_aci(mocked_workspace):
    cluster = ComputeTarget.create(
        mocked_workspace, "cluster", AksCompute.provisioning_configuration()
    )
    mocked_workspace.cloud.fail_init("OSError: the model is not readable")
    with pytest.raises(DeploymentError, match=r"init.*Its state is Failed\.") as raised:
        deploy(mocked_workspace, cluster=cluster)
    assert "OSError: the model is not readable" in raised.value.logs
    mocked_workspace.cloud.never_finish()
    with pytest.raises(DeploymentTimeout, match="Pass a longer timeout"):
        deploy(mocked_workspace, "slow", cluster=cluster)
