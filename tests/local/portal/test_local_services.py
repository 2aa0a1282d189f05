"""Local services as the page lists, logs and scores them."""

from __future__ import annotations

import io
import tarfile

import pytest
from polling import wait_until
from weights_service import SCRIPT

from mnist_deploy.local.core.faults import NotFound
from mnist_deploy.local.core.local_containers import LocalContainers, LocalContainerSpec
from mnist_deploy.local.portal.local_services import (
    find_local_service,
    list_local_services,
    serialize_local_service,
)
from mnist_deploy.local.portal.proxy import score


@pytest.fixture
def containers(tmp_path):
    made = LocalContainers(tmp_path / "local-containers")
    context = io.BytesIO()
    with tarfile.open(fileobj=context, mode="w") as tar:
        for name, text in (("Dockerfile", "FROM x\nCOPY . /var/azureml-app\n"),
                           ("score.py", SCRIPT), ("weights.txt", "1 10 100")):  # fmt: skip
            entry = tarfile.TarInfo(name)
            entry.size = len(text)
            tar.addfile(entry, io.BytesIO(text.encode()))
    context.seek(0)
    made.build(context, "Dockerfile", "image")
    yield made
    made.close()


def test_local_service_is_listed_and_scored(containers):
    variables = {
        "AZUREML_ENTRY_SCRIPT": "score.py",
        "AZUREML_MODEL_DIR": "/var/azureml-app",
    }
    container = containers.create(
        LocalContainerSpec("image", variables=variables, labels={"containerName": "one"})
    )
    service = find_local_service(containers, "one")
    assert score(service, b'{"data": [[1, 2, 3]]}')["status"] == 503
    assert serialize_local_service(service)["state"] == "Unhealthy"
    container.start()
    answer = score(service, b'{"data": [[1, 2, 3]]}')
    assert (answer["status"], answer["body"]) == (200, "[321.0]")
    wait_until(lambda: serialize_local_service(service)["state"] == "Healthy")
    shown = serialize_local_service(service)
    assert (shown["kind"], shown["name"], shown["state"]) == ("local", "one", "Healthy")
    assert shown["uri"] == f"http://127.0.0.1:{container.port}/score"
    assert "weights are loaded" in service.deployments["one"].log_tail(100)


def test_local_services_are_empty_without_a_docker_engine():
    assert list_local_services(None) == []
    with pytest.raises(NotFound, match="no local service one"):
        find_local_service(None, "one")
