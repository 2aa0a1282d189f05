"""A killed control plane: its processes end, and the next client starts all of it again."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import psutil
import pytest
import requests
from polling import PATIENCE, is_running, wait_until
from weights_service import make_inference_config, register_weights

from mnist_deploy import local
from mnist_deploy.local.discovery import ControlPlaneAddress

pytestmark = pytest.mark.processes
ROWS = json.dumps({"data": [[1, 2, 3]]})


def deploy(ws, models, folder: Path):
    """Deploy to ACI, whose scoring process accepts itself, and to AKS, which has a router."""
    from azureml.core import Model
    from azureml.core.compute import AksCompute
    from azureml.core.webservice import AciWebservice, AksWebservice

    config = make_inference_config(folder / "script")
    aci = AciWebservice.deploy_configuration(cpu_cores=1, memory_gb=1)
    aks = AksWebservice.deploy_configuration(cpu_cores=1, memory_gb=1, auth_enabled=False)
    cluster = AksCompute.create(ws, "cluster", AksCompute.provisioning_configuration())
    services = [
        Model.deploy(ws, "alone", models, config, aci),
        Model.deploy(ws, "routed", models, config, aks, deployment_target=cluster),
    ]
    for service in services:
        service.wait_for_deployment()
        answer = requests.post(service.scoring_uri, ROWS, timeout=10 * PATIENCE)
        assert (answer.status_code, answer.json()) == (200, [321.0])
    return services


def test_killed_control_plane_leaves_no_process_and_is_restarted_with_its_records(home, tmp_path):
    ws = local.connect(home)
    model = register_weights(ws, tmp_path, "weights")
    services = deploy(ws, [model], tmp_path)
    before = ControlPlaneAddress.read(home / "run")
    killed = psutil.Process(before.pid)
    descendants = killed.children(recursive=True)
    assert len(descendants) >= 3  # two scoring processes and a router
    [temporary] = Path(tempfile.gettempdir()).glob(f"mnist-deploy-{killed.pid}-*")

    with open(home / "run" / "endpoint.json"):  # as a client that reads it just then
        killed.kill()
        wait_until(lambda: not any(is_running(each.pid) for each in descendants), 5)
        wait_until(lambda: not is_running(killed.pid), 5)
    with pytest.raises(requests.ConnectionError):
        requests.post(services[0].scoring_uri, ROWS, timeout=10)

    ws = local.connect(home)
    after = ControlPlaneAddress.read(home / "run")
    assert (after.pid != before.pid, after.token != before.token) == (True, True)
    assert not temporary.exists()
    assert ws.webservices == {}  # services are not kept
    assert [each.id for each in ws.models.values()] == ["weights:1"]
    deploy(ws, [ws.models["weights"]], tmp_path)

    local.wipe(home)
    wait_until(lambda: not is_running(after.pid), 5)
    assert list(home.iterdir()) == []
