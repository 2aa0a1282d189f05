"""The Docker Engine API when its control plane or a scoring process is killed."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import psutil
import pytest
import requests
from polling import is_running, wait_until
from weights_service import SCRIPT

from mnist_deploy import local

docker = pytest.importorskip("docker")

pytestmark = [
    pytest.mark.faults,
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),  # docker-py's connections
    pytest.mark.filterwarnings("ignore:requests session is not set"),
]
WAIT = 120.0  # seconds that a condition may take on a busy machine
REQUEST = {"data": [[1, 2, 3]]}


@pytest.fixture
def start_container(home, tmp_path):
    """Build and start a container in a workspace; (engine, container, its URL)."""
    (tmp_path / "context").mkdir()
    (tmp_path / "context" / "Dockerfile").write_text("FROM x\n")
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "score.py").write_text(SCRIPT)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "weights.txt").write_text("1 10 100")
    engines = []

    def start():
        engine = docker.DockerClient(base_url=local.start(home).docker_host)
        engines.append(engine)
        engine.images.build(path=str(tmp_path / "context"), tag="weights")
        container = engine.containers.create(
            "weights",
            environment={
                "AML_APP_ROOT": "/var/azureml-app/code",
                "AZUREML_ENTRY_SCRIPT": "score.py",
                "AZUREML_MODEL_DIR": "/var/azureml-app/model",
            },
            volumes=[
                f"{tmp_path / 'code'}:/var/azureml-app/code",
                f"{tmp_path / 'model'}:/var/azureml-app/model",
            ],
            ports={"5001/tcp": None},
        )
        container.start()
        container.reload()
        [port] = container.attrs["NetworkSettings"]["Ports"]["5001/tcp"]
        url = f"http://127.0.0.1:{port['HostPort']}/score"
        wait_until(lambda: score(url) == [321.0], WAIT)
        return engine, container, url

    yield start
    for engine in engines:
        engine.close()


def score(url: str):
    try:
        answer = requests.post(url, json=REQUEST, timeout=WAIT)
    except requests.ConnectionError:
        return None
    return answer.json() if answer.ok else None


def scoring_processes(tmp_path: Path) -> list[psutil.Process]:
    """The processes of local containers, whose working directory is the mounted code."""
    folder = str(tmp_path / "code")
    return [
        process
        for process in psutil.process_iter(["cwd", "pid"])
        if str(process.info["cwd"]) == folder and is_running(process.info["pid"])
    ]


def test_container_answers_again_after_its_scoring_process_is_killed(
    start_container, tmp_path, account
):
    """Scoring process of a local container killed."""
    _, container, url = start_container()
    for _ in range(3):
        victims = scoring_processes(tmp_path)
        assert victims
        for victim in victims:
            victim.kill()
        psutil.wait_procs(victims, WAIT)
        wait_until(lambda: score(url) == [321.0], WAIT)
        account.times += 1
    container.reload()
    assert container.status == "running"
    account.found = "the same port answers again"


def test_containers_end_with_a_control_plane_that_is_killed(
    home, start_container, tmp_path, account
):
    """Control plane killed with a local container in it."""
    for _ in range(2):
        engine, _, url = start_container()
        before = scoring_processes(tmp_path)
        assert before
        os.kill(local.start(home).pid, signal.SIGKILL)
        _, alive = psutil.wait_procs(before, WAIT)
        if alive or score(url) is not None:
            account.lost.append(f"{alive} left, or {url} answers")
        with pytest.raises((requests.ConnectionError, docker.errors.DockerException)):
            engine.containers.list()
        account.times += 1
    engine, _, _ = start_container()  # the next control plane has none of the old containers
    assert len(engine.containers.list(all=True)) == 1
    account.found = "no process and no port left; the next control plane starts containers"
