"""The way from a v1 service to a v2 endpoint, walked for real."""

from __future__ import annotations

from unittest.mock import create_autospec

import numpy as np
import pytest
import yaml
from azureml.core import Model
from azureml.core.webservice import AciWebservice
from weights_service import SCRIPT, make_inference_config

from mnist_deploy import delete_service
from mnist_deploy.errors import DeploymentError
from mnist_deploy.managed import delete_endpoint, migrate_service

IMAGES = np.array([[0.25, 0.5, 1.0], [1.0, 0.0, 0.0]])


@pytest.fixture
def script(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "weights.txt").write_text("1 10 100")
    (tmp_path / "score_weights.py").write_text(SCRIPT)
    return tmp_path / "score_weights.py"


@pytest.fixture
def service(ws, script, tmp_path):
    """An open service of one core and two GB, with a name in its address."""
    deployed = Model.deploy(
        ws,
        "old-weights",
        [Model.register(ws, "weights.txt", "old-weights")],
        make_inference_config(tmp_path / "v1", packages=("numpy",)),
        AciWebservice.deploy_configuration(
            cpu_cores=1, memory_gb=2, tags={"data": "weights"}, dns_name_label="weights"
        ),
    )
    deployed.wait_for_deployment()
    yield deployed
    delete_service(deployed)


@pytest.mark.processes
def test_both_give_the_same_labels_and_the_text_says_what_became_of_what(
    client, service, script, tmp_path
):
    from azure.ai.ml import load_online_deployment, load_online_endpoint

    folder = tmp_path / "v2"
    migration = migrate_service(service, client, folder, IMAGES, entry_script=script)
    try:
        assert (migration.compared, migration.different) == (2, 0)
        assert migration.endpoint.traffic == {"blue": 100}
        assert load_online_endpoint(source=folder / "endpoint.yml").tags == {"data": "weights"}
        deployment = load_online_deployment(source=folder / "deployment.yml")
        assert deployment.instance_type == "Standard_DS2_v2"
        conda = yaml.safe_load((folder / "conda.yml").read_text())
        assert "numpy" in conda["dependencies"][-1]["pip"]
        text = (folder / "MIGRATION.md").read_text()
        assert text == str(migration)
        assert "2 images were scored by both; 0 labels differ." in text
        assert "the model old-weights:1" in migration.carried_over
        assert any("a key is asked for now" in what for what, _ in migration.changed)
        assert service.run('{"data": [[1, 0, 0]]}') == [1.0]  # nothing was deleted

        script.write_text(SCRIPT.replace("float(", "2 * float("))
        again = migrate_service(service, client, folder, IMAGES, entry_script=script)
        assert again.different == 2
        assert "2 labels differ" in (folder / "MIGRATION.md").read_text()
    finally:
        delete_endpoint(client, migration.endpoint)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"state": "Failed"}, "'old' is Failed: there is nothing to compare with"),
        ({"models": [1, 2]}, "has 2 models"),
        ({"environment": None}, "no environment"),
    ],
)
def test_what_cannot_be_brought_over_is_said_before(settings, reason, tmp_path):
    service = create_autospec(AciWebservice, instance=True)
    settings = {"state": "Healthy", "models": [1], "environment": object(), **settings}
    service.configure_mock(name="old", **settings)
    with pytest.raises(DeploymentError, match=reason):
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
    ],
)
def test_what_is_lost_is_told(settings, lost):
    from mnist_deploy.managed.migration import _lost

    service = create_autospec(AciWebservice, instance=True)
    none = dict.fromkeys(("cname", "ssl_enabled", "encryption_properties", "vnet_configuration"))
    service.configure_mock(**none | settings)
    told = _lost(service, "def init(): pass")
    assert len(told) == len(lost)
    assert all(word in what for word, (what, _) in zip(lost, told, strict=True))
    assert len(_lost(service, "Model.get_model_path('x')")) == len(lost) + 1
