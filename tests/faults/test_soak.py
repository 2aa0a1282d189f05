"""Each process of a workspace is lost in turn, and a soak of both SDKs beside a model of them."""

from __future__ import annotations

import os
import random
import socket
import threading
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest
import requests
from polling import wait_until
from rest import Rest
from test_control_plane_faults import processes_of
from test_scoring_faults import ANSWERS, Asker, deploy, deploy_aks, helper
from test_v2_faults import addresses  # noqa: F401

from mnist_deploy import local

pytestmark = pytest.mark.faults

entities = pytest.importorskip("azure.ai.ml.entities")

SOAK_SECONDS = float(os.environ.get("MNIST_DEPLOY_SOAK_SECONDS", "600"))
FORK_SERVER, ROUTER = "mnist_deploy.local.scoring.fork_server", "mnist_deploy.local.core.router"
PROBE = {"initial_delay_seconds": 1, "period_seconds": 1, "timeout_seconds": 1,
         "failure_threshold": 3}  # fmt: skip


def test_loss_of_a_process_leaves_the_other_service_as_it_is(workspace, home, account):
    """Fork server, router and scoring process killed and suspended in turn, two services loaded."""
    other = deploy(workspace, "other", ANSWERS)
    hit = deploy_aks(workspace, "hit", ANSWERS, scoring_timeout_ms=5_000, **PROBE)

    def score() -> requests.Response:
        return requests.post(hit.scoring_uri, "{}", timeout=30)

    stop = threading.Event()
    clients = [Asker(service.scoring_uri, stop) for service in (other, hit)]
    for client in clients:
        client.start()
    slowest = 0.0
    for sent in ("kill", "suspend"):
        for module in (FORK_SERVER, ROUTER, "scoring process"):
            wait_until(lambda: score().ok, 60)
            is_scoring = module == "scoring process"
            lost = psutil.Process(score().json()) if is_scoring else helper(home, module)
            answered = clients[0].answers
            began = time.monotonic()
            getattr(lost, sent)()
            account.times += 1
            if module == FORK_SERVER:
                third = deploy(workspace, "third", ANSWERS)
                assert third.run("{}") > 0
                third.delete()
            wait_until(lambda: score().ok, 60)
            slowest = max(slowest, time.monotonic() - began)
            wait_until(lambda lost=lost: not lost.is_running(), 30)
            wait_until(lambda answered=answered: clients[0].answers > answered, 30)
    stop.set()
    for client in clients:
        client.join(60)
    account.lost += clients[0].errors
    if len(clients[0].pids) != 1:
        account.lost.append("the other service was restarted")
    account.found = (
        f"{clients[0].answers} answers of the other service by one process, 0 errors; the service "
        f"that was hit: {clients[1].answers} answers, {len(clients[1].errors)} error responses, "
        f"ready again after at most {slowest:.1f} s"
    )


class Soak:
    """Random calls of both SDKs, and what must be there after each of them."""

    def __init__(self, workspace, client, seed: int) -> None:
        self._workspace, self._client = workspace, client
        self._random = random.Random(seed)
        self._number = 0
        self.models: set[str] = set()  # name:version
        self.last_version: Counter[str] = Counter()
        self.services: dict[str, object] = {}  # SDK v1
        self.endpoints: set[str] = set()  # SDK v2
        self.answers: dict[str, str] = {}  # by service or endpoint
        self.calls = Counter[str]()
        self.answered = 0
        self.lost: list[str] = []

    def step(self) -> None:
        steps = [self.register_v1, self.register_v2, self.delete_model, self.deploy_v1,
                 self.delete_v1, self.deploy_v2, self.delete_v2]  # fmt: skip
        [step] = self._random.choices(steps, weights=[4, 4, 4, 6, 3, 2, 1])
        step()
        self.calls[step.__name__] += 1
        self.score_all()

    def _expect_version(self, name: str, version: int) -> None:
        if version != self.last_version[name] + 1:
            self.lost.append(f"{name}: version {version} after {self.last_version[name]}")
        self.last_version[name] = version
        self.models.add(f"{name}:{version}")

    def _content(self) -> Path:
        self._number += 1
        path = Path("model.bin")
        path.write_bytes(self._random.randbytes(1000))
        return path

    def _script(self) -> tuple[Path, str]:
        self._number += 1
        folder = Path(f"code{self._number}")
        folder.mkdir()
        answer = f"answer {self._number}"
        (folder / "score.py").write_text(f"def init(): pass\ndef run(raw): return {answer!r}\n")
        return folder, answer

    def register_v1(self) -> None:
        from azureml.core import Model

        registered = Model.register(self._workspace, str(self._content()), "first")
        self._expect_version("first", registered.version)

    def register_v2(self) -> None:
        wanted = entities.Model(name="second", path=str(self._content()))
        self._expect_version("second", int(self._client.models.create_or_update(wanted).version))

    def delete_model(self) -> None:
        from azureml.core import Model

        # A version that was the newest may be given again: the newest ones stay.
        newest = {f"{name}:{version}" for name, version in self.last_version.items()}
        if older := sorted(self.models - newest):
            name, version = self._random.choice(older).split(":")
            Model(self._workspace, name, version=int(version)).delete()
            self.models.discard(f"{name}:{version}")

    def deploy_v1(self) -> None:
        name = self._random.choice(["one", "two", "three"])
        folder, answer = self._script()
        self.services[name] = deploy(
            self._workspace, name, (folder / "score.py").absolute(), overwrite=True
        )
        self.answers[name] = answer

    def delete_v1(self) -> None:
        if self.services:
            name = self._random.choice(sorted(self.services))
            self.services.pop(name).delete()
            del self.answers[name]

    def deploy_v2(self) -> None:
        folder, answer = self._script()
        endpoint = entities.ManagedOnlineEndpoint(name="managed")
        if not self.endpoints:
            self._client.online_endpoints.begin_create_or_update(endpoint).result()
            self.endpoints.add("managed")
        code = entities.CodeConfiguration(code=str(folder), scoring_script="score.py")
        environment = entities.Environment(name="soak", version="1", image="mcr.microsoft.com/x")
        deployment = entities.ManagedOnlineDeployment(
            name="blue", endpoint_name="managed", environment=environment, code_configuration=code,
            instance_type="Standard_DS3_v2",
        )  # fmt: skip
        self._client.online_deployments.begin_create_or_update(deployment).result()
        endpoint.traffic = {"blue": 100}
        self._client.online_endpoints.begin_create_or_update(endpoint).result()
        self.answers["managed"] = answer

    def delete_v2(self) -> None:
        if self.endpoints:
            self._client.online_endpoints.begin_delete("managed").result()
            self.endpoints.clear()
            del self.answers["managed"]

    def score_all(self) -> None:
        for name, service in self.services.items():
            self._compare(name, service.run("{}"))
        for name in self.endpoints:
            endpoint = self._client.online_endpoints.get(name)
            key = self._client.online_endpoints.get_keys(name).primary_key
            headers = {"Authorization": f"Bearer {key}"}
            response = requests.post(endpoint.scoring_uri, "{}", headers=headers, timeout=30)
            self._compare(name, response.json())

    def _compare(self, name: str, answer: object) -> None:
        self.answered += 1
        if answer != self.answers[name]:
            self.lost.append(f"{name}: {answer!r} in place of {self.answers[name]!r}")

    def compare_records(self, rest: Rest) -> None:
        from azureml.core import Webservice

        models = rest.models()
        self.lost += [f"{each}: expected or unexpected" for each in models.keys() ^ self.models]
        self.lost += [f"{n} is damaged" for n, m in models.items() if not rest.content(m)]
        listed = {service.name for service in Webservice.list(self._workspace)}
        self.lost += [f"service {each}" for each in listed ^ self.services.keys()]
        endpoints = {endpoint.name for endpoint in self._client.online_endpoints.list()}
        self.lost += [f"endpoint {each}" for each in endpoints ^ self.endpoints]


def test_soak_of_both_sdks(workspace, home, account, addresses: set[str]):  # noqa: F811
    """Random calls of both SDKs, compared with a model of the workspace after each call."""
    soak = Soak(workspace, local.connect_client(home), seed=23)
    rest = Rest(local.start(home))
    control_plane = psutil.Process(rest.endpoint.pid)
    descriptors = control_plane.num_fds()
    give_up_at = time.monotonic() + SOAK_SECONDS
    while time.monotonic() < give_up_at and not soak.lost:
        soak.step()
        account.times = sum(soak.calls.values())
    soak.compare_records(rest)
    for service in soak.services.values():
        service.delete()
    soak.services.clear()
    soak.delete_v2()
    account.lost += soak.lost
    wait_until(lambda: not processes_of(home), 10)
    threads, grown = control_plane.num_threads(), control_plane.num_fds() - descriptors
    local.stop(home)
    wait_until(lambda: not control_plane.is_running(), 10)
    assert addresses <= {"127.0.0.1", socket.gethostname()}
    account.found = (
        f"{soak.answered} answers in {SOAK_SECONDS:.0f} s, all right; {len(soak.models)} models; "
        f"then {threads} threads and {grown:+d} file descriptors in the control plane"
    )
