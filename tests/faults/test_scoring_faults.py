"""Scoring processes die, grow or lose the kernel that they belong to."""

from __future__ import annotations

import contextlib
import re
import threading
import time
from pathlib import Path

import joblib
import numpy as np
import psutil
import pytest
import requests
from jupyter_client import KernelManager
from weights_service import until

from mnist_deploy import local
from mnist_deploy.client import post_images
from mnist_deploy.errors import ScoringError
from mnist_deploy.local.tls import Endpoint
from mnist_deploy.part_one import fit_model

SCORE = Path(__file__).resolve().parents[2] / "score.py"


def small(**more):
    from azureml.core.webservice import AciWebservice

    return AciWebservice.deploy_configuration(**{"cpu_cores": 1, "memory_gb": 1, **more})


def deploy(ws, name: str, script: str | Path, models=(), **more):
    from azureml.core import Environment, Model
    from azureml.core.model import InferenceConfig

    if isinstance(script, str):
        Path("script.py").write_text(script)
        script = Path("script.py").absolute()
    environment = Environment("plain")
    environment.python.user_managed_dependencies = True
    config = InferenceConfig(
        script.name, source_directory=str(script.parent), environment=environment
    )
    service = Model.deploy(ws, name, list(models), config, small(**more))
    service.wait_for_deployment()
    return service


def scoring_family(home: Path) -> list[psutil.Process]:
    """The arbiter of the only service, and its workers."""
    [arbiter] = psutil.Process(local.start(home).pid).children()
    return [arbiter, *arbiter.children(recursive=True)]


class Load(threading.Thread):
    """A client that scores without pause, and notes what came of each request."""

    def __init__(self, uri, images, labels, patience: float, stop: threading.Event) -> None:
        super().__init__(daemon=True)
        self._call = (uri, images, labels, patience)
        self._end = stop
        self.answers, self.errors, self.wrong = 0, [], []

    def run(self) -> None:
        uri, images, labels, patience = self._call
        chance = np.random.default_rng(self.ident)
        while not self._end.is_set():
            first = int(chance.integers(len(images) - 20))
            rows = slice(first, first + int(chance.integers(1, 20)))
            try:
                predicted = post_images(uri, images[rows], patience=patience, timeout=30)
            except ScoringError as error:
                self.errors.append(error)
                self._end.wait(0.02)
            except Exception as error:
                self.wrong.append(f"{type(error).__name__}: {error}")
            else:
                self.answers += 1
                if not np.array_equal(predicted, labels[rows]):
                    self.wrong.append(f"rows {rows}")


@pytest.fixture
def digits(workspace, sample_data, tmp_path):
    """A service that reads digits, 1,000 images and what the model says of them."""
    from azureml.core import Model

    X_train, y_train, X_test, _ = sample_data
    model = fit_model(X_train, y_train, regularization=0.8)
    joblib.dump(model, "sklearn_mnist_model.pkl")
    registered = Model.register(workspace, "sklearn_mnist_model.pkl", "digits")
    source = tmp_path / "source"
    source.mkdir()
    (source / "score.py").write_bytes(SCORE.read_bytes())
    service = deploy(workspace, "digits", source / "score.py", [registered])
    return service, X_test, model.predict(X_test)


def test_killed_under_load(digits, home, account):
    """Scoring process killed under load from 8 clients, worker and arbiter in turn."""
    service, images, labels = digits
    stop = threading.Event()
    clients = [
        Load(service.scoring_uri, images, labels, patience, stop) for patience in (0, 10) * 4
    ]
    for client in clients:
        client.start()
    slowest = 0.0
    for turn in range(20):
        served = sum(client.answers for client in clients)
        until(lambda served=served: sum(client.answers for client in clients) > served + 20)
        arbiter, *workers = scoring_family(home)
        victim = arbiter if turn % 2 else workers[0]
        victim.kill()
        began = time.monotonic()
        until(lambda victim=victim: not victim.is_running() or victim.status() == "zombie", 5)
        serves_again(service.scoring_uri, images[:3], labels[:3])
        slowest = max(slowest, time.monotonic() - began)
        account.times += 1
    stop.set()
    for client in clients:
        client.join(60)
        assert not client.is_alive(), "a request never ended"
        account.lost += client.wrong
    answers = sum(client.answers for client in clients)
    errors = [error for client in clients for error in client.errors]
    assert slowest < 10
    assert all(str(error) for error in errors)
    account.found = (
        f"{answers} right answers, {len(errors)} clear errors, 0 wrong; "
        f"serving again after {slowest:.1f} s at most"
    )
    until(lambda: service.update_deployment_state() or service.state == "Healthy", 10)


def serves_again(uri: str, images, labels) -> None:
    def answers() -> bool:
        try:
            return np.array_equal(post_images(uri, images, patience=0, timeout=10), labels)
        except ScoringError:
            return False

    until(answers, 10)


GROWS = """
held = []
def init(): pass
def run(raw):
    if raw == '"grow"':
        held.append(bytes([1]) * (700 << 20))
    return len(held)
"""


def test_outgrows_its_memory(workspace, account):
    """A service that outgrows memory_gb."""
    service = deploy(workspace, "grows", GROWS, memory_gb=0.5)
    score = service.scoring_uri
    for turn in range(1, 4):
        with contextlib.suppress(requests.ConnectionError):  # it may be ended before it answers
            requests.post(score, '"grow"', timeout=30)
        until(lambda turn=turn: service.get_logs().count("more than the 0.5 GB") == turn, 10)
        if requests.post(score, '"look"', timeout=30).json() != 0:
            account.lost.append("it was not started anew")
        account.times += 1
    assert service.get_logs().count("restarting it") == 3
    account.found = "ended, started anew, and its log says why"


NOTEBOOK = """
import os
from pathlib import Path
os.chdir({folder!r})
from mnist_deploy import local
ws = local.connect({home!r})
from azureml.core import Environment, Model
from azureml.core.model import InferenceConfig
from azureml.core.webservice import AciWebservice
Path("score_one.py").write_text("def init(): pass\\ndef run(raw): return 1\\n")
environment = Environment("plain")
environment.python.user_managed_dependencies = True
for name in ("one", "two"):
    service = Model.deploy(ws, name, [], InferenceConfig("score_one.py", environment=environment),
                           AciWebservice.deploy_configuration(cpu_cores=2, memory_gb=1))
    service.wait_for_deployment()
assert service.run("{{}}") == 1
print("READY", os.getpid())
"""


def test_a_kernel_is_killed(home, tmp_path, account):
    """kill -9 of a notebook's kernel with two services deployed."""
    slowest = 0.0
    for _ in range(2):
        manager = KernelManager(kernel_name="python3")
        manager.start_kernel()
        client = manager.client()
        client.start_channels()
        try:
            client.wait_for_ready(timeout=60)
            kernel = run_cell(client, NOTEBOOK.format(folder=str(tmp_path), home=str(home)))
            control_plane = psutil.Process(Endpoint.read(home / "run").pid)
            family = [control_plane, *control_plane.children(recursive=True)]
            assert len(family) >= 1 + 2 * 3, family  # for each service an arbiter and two workers
            ports = {
                connection.laddr.port
                for process in family
                for connection in process.net_connections("inet")
                if connection.status == psutil.CONN_LISTEN
            }
            assert len(ports) == 3
            psutil.Process(kernel).kill()
            began = time.monotonic()
            try:
                until(lambda family=family, ports=ports: not left(family, ports), 5)
            except AssertionError:
                account.lost.append(str(left(family, ports)))
            slowest = max(slowest, time.monotonic() - began)
            account.times += 1
        finally:
            client.stop_channels()
            manager.shutdown_kernel(now=True)
    account.found = f"no process and no port left after {slowest:.1f} s at most"


def run_cell(client, code: str) -> int:
    """Run a cell that prints READY and the number of its process; that number."""
    printed: list[str] = []
    reply = client.execute_interactive(
        code, timeout=120, output_hook=lambda message: printed.append(str(message["content"]))
    )
    assert reply["content"]["status"] == "ok", printed
    return int(re.search(r"READY (\d+)", "".join(printed))[1])


def left(family: list[psutil.Process], ports: set[int]) -> list:
    running = [p for p in family if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]
    open_ports = [
        connection.laddr.port
        for connection in psutil.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN and connection.laddr.port in ports
    ]
    return running + open_ports
