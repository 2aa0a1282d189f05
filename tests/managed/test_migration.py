"""`migrate_service`: from a service of SDK v1 to an endpoint of SDK v2."""

from __future__ import annotations

from types import SimpleNamespace
from unittest.mock import create_autospec

import numpy as np
import pytest
import yaml
from azureml.core import Model
from azureml.core.compute import AksCompute, ComputeTarget
from azureml.core.webservice import AciWebservice, AksWebservice
from weights_service import SCRIPT, make_inference_config

from mnist_deploy import delete_service, fetch_model
from mnist_deploy.errors import DeploymentError
from mnist_deploy.managed import call_endpoint, delete_endpoint, migrate_service

IMAGES = np.array([[0.25, 0.5, 1.0], [1.0, 0.0, 0.0]])


@pytest.fixture
def script(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "weights.txt").write_text("1 10 100")
    (tmp_path / "score_weights.py").write_text(SCRIPT)
    return tmp_path / "score_weights.py"


@pytest.fixture
def deploy(ws, script, tmp_path):
    """Deploy the script of the weights to ACI or to a cluster; delete the service at the end."""
    deployed = []

    def deploy(config, cluster=None):
        model = Model.register(ws, "weights.txt", "old-weights")
        inference_config = make_inference_config(tmp_path / "v1", packages=("numpy",))
        deployed.append(Model.deploy(ws, "old-weights", [model], inference_config, config, cluster))
        deployed[0].wait_for_deployment()
        return deployed[0], model

    yield deploy
    delete_service(deployed[0])


@pytest.fixture
def cluster(ws):
    made = ComputeTarget.create(ws, "old-cluster", AksCompute.provisioning_configuration())
    made.wait_for_completion()
    yield made
    made.delete()


@pytest.mark.processes
def test_service_on_aci_is_migrated_with_equal_labels(client, deploy, script, tmp_path):
    from azure.ai.ml import load_online_deployment, load_online_endpoint

    service, model = deploy(
        AciWebservice.deploy_configuration(
            cpu_cores=1, memory_gb=2, tags={"data": "weights"}, dns_name_label="weights"
        )
    )
    folder = tmp_path / "v2"
    migration = migrate_service(service, client, folder, IMAGES, entry_script=script)
    try:
        assert (migration.compared, migration.different) == (2, 0)
        assert migration.endpoint.traffic == {"blue": 100}
        assert load_online_endpoint(source=folder / "endpoint.yml").tags == {"data": "weights"}
        deployment = load_online_deployment(source=folder / "deployment.yml")
        assert (deployment.instance_type, deployment.instance_count) == ("Standard_DS2_v2", 1)
        conda = yaml.safe_load((folder / "conda.yml").read_text())
        assert "numpy" in conda["dependencies"][-1]["pip"]
        text = (folder / "MIGRATION.md").read_text()
        assert text == str(migration)
        assert "scored 2 images; 0 labels differ." in text
        assert f"the model {model.id}" in migration.carried_over
        assert any("a key is required" in what for what, _ in migration.changed)
        assert service.run('{"data": [[1, 0, 0]]}') == [1.0]  # it is not deleted

        script.write_text(SCRIPT.replace("float(", "2 * float("))
        second = migrate_service(service, client, folder, IMAGES, entry_script=script)
        assert second.different == 2
        assert "2 labels differ" in (folder / "MIGRATION.md").read_text()
    finally:
        delete_endpoint(client, migration.endpoint)


@pytest.mark.processes
def test_service_on_aks_is_migrated_with_replicas_tokens_and_limits(
    client, cluster, deploy, script, tmp_path
):
    service, _ = deploy(
        AksWebservice.deploy_configuration(
            num_replicas=2, cpu_cores=0.5, cpu_cores_limit=3, memory_gb=1, token_auth_enabled=True,
            auth_enabled=False, scoring_timeout_ms=200_000, replica_max_concurrent_requests=4,
            max_request_wait_time=2000, initial_delay_seconds=60, period_seconds=5,
        ),
        cluster,
    )  # fmt: skip
    migration = migrate_service(service, client, tmp_path / "v2", IMAGES, entry_script=script)
    try:
        made = client.online_deployments.get("blue", service.name)
        labels = call_endpoint(client, migration.endpoint, IMAGES).tolist()
    finally:
        delete_endpoint(client, migration.endpoint)
    assert (migration.compared, migration.different, labels) == (2, 0, [105.25, 1.0])
    assert (migration.endpoint.auth_mode, made.instance_count) == ("aml_token", 2)
    assert made.instance_type == "Standard_DS3_v2"  # as large as its limit
    settings = made.request_settings
    assert (settings.request_timeout_ms, settings.max_queue_wait_ms) == (180_000, 2000)
    assert settings.max_concurrent_requests_per_instance == 4
    assert (made.liveness_probe.initial_delay, made.liveness_probe.period) == (60, 5)
    assert "2 replicas, each on a virtual machine of its own" in migration.carried_over
    assert migration.lost == ()
    changed = "\n".join(what for what, _ in migration.changed)
    for what in ("the tokens", "cpu_cores=3 and memory_gb=1 became",
                 "replace the cluster old-cluster", "180 s at most"):  # fmt: skip
        assert what in changed
    assert "a key is required" not in changed


@pytest.mark.parametrize("replicas", [3, None])
def test_report_names_the_autoscaler_only_if_there_was_one(
    mocked_workspace, mocked_client, script, tmp_path, replicas
):
    cluster = ComputeTarget.create(
        mocked_workspace, "cluster", AksCompute.provisioning_configuration()
    )
    config = AksWebservice.deploy_configuration(num_replicas=replicas)
    inference_config, models = (
        make_inference_config(tmp_path / "v1"),
        [fetch_model(mocked_workspace)],
    )
    service = Model.deploy(mocked_workspace, "old", models, inference_config, config, cluster)
    service.wait_for_deployment()
    images, folder = np.zeros((2, 784)), tmp_path / "v2"
    migration = migrate_service(service, mocked_client, folder, images, entry_script=script)
    is_named = "the number of replicas does not depend on the load" in dict(migration.changed)
    assert is_named == (replicas is None)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"state": "Failed"}, "'old' is Failed, so that"),
        ({"models": [1, 2]}, "has 2 models"),
        ({"environment": None}, "no environment"),
        ({"versions": {"one": 1, "two": 2}}, "AksEndpoint with the versions one, two"),
    ],
)
def test_service_that_cannot_be_migrated_is_rejected(settings, message, tmp_path):
    service = create_autospec(AciWebservice, instance=True)
    settings = {"state": "Healthy", "models": [1], "environment": object(), **settings}
    service.configure_mock(name="old", **settings)
    with pytest.raises(DeploymentError, match=message):
        migrate_service(service, None, tmp_path / "v2", IMAGES)
    assert not (tmp_path / "v2").exists()


@pytest.mark.parametrize(
    ("settings", "lost"),
    [
        ({}, set()),
        ({"cname": "mine"}, {"dns_name_label"}),
        ({"ssl_enabled": True}, {"ssl_enabled"}),
        ({"encryption_properties": object()}, {"EncryptionProperties"}),
        ({"vnet_configuration": object()}, {"virtual network"}),
        ({"container_resource_requirements": SimpleNamespace(gpu=1)}, {"gpu_cores"}),
        ({"data_collection": SimpleNamespace(storage_enabled=True)}, {"collect_model_data"}),
    ],
)
def test_losses_are_listed(settings, lost):
    from mnist_deploy.managed.migration_report import list_losses

    small = {"container_resource_requirements": SimpleNamespace(gpu=None)}
    service = SimpleNamespace(**small | settings)
    losses = list_losses(service, "def init(): pass")
    assert len(losses) == len(lost)
    assert all(word in what for word, (what, _) in zip(lost, losses, strict=True))
    assert len(list_losses(service, "Model.get_model_path('x')")) == len(lost) + 1
