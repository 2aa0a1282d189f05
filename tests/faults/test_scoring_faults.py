"""Scoring processes are killed, grow, hang or lose the processes around them."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from urllib.parse import urlsplit

import joblib
import numpy as np
import psutil
import pytest
import requests
from jupyter_client import KernelManager
from polling import wait_until

from mnist_deploy import local
from mnist_deploy.client import post_images
from mnist_deploy.errors import ScoringError
from mnist_deploy.local.discovery import ControlPlaneAddress
from mnist_deploy.part_one import fit_model

pytestmark = pytest.mark.faults

SCORE = Path(__file__).resolve().parents[2] / "score.py"


def small(**more):
    from azureml.core.webservice import AciWebservice

    return AciWebservice.deploy_configuration(**{"cpu_cores": 1, "memory_gb": 1, **more})


def deploy(
    ws, name: str, script: str | Path, models=(), variables=None, *, overwrite=False, **more
):
    from azureml.core import Environment, Model
    from azureml.core.model import InferenceConfig

    if isinstance(script, str):
        Path("script.py").write_text(script)
        script = Path("script.py").absolute()
    environment = Environment("plain")
    environment.python.user_managed_dependencies = True
    environment.environment_variables = variables or {}
    config = InferenceConfig(
        script.name, source_directory=str(script.parent), environment=environment
    )
    service = Model.deploy(ws, name, list(models), config, small(**more), overwrite=overwrite)
    service.wait_for_deployment()
    return service


def scoring_process(home: Path) -> psutil.Process:
    """The scoring process of the only service."""
    process_tree = psutil.Process(local.start(home).pid).children(recursive=True)
    [process] = [each for each in process_tree if str(home) in each.cwd()]
    return process


class Load(threading.Thread):
    """A client that scores in a loop and records the outcome of each request."""

    def __init__(self, uri, images, labels, retry_seconds: float, stop: threading.Event) -> None:
        super().__init__(daemon=True)
        self._call = (uri, images, labels, retry_seconds)
        self._end = stop
        self.answers, self.errors, self.wrong = 0, [], []

    def run(self) -> None:
        uri, images, labels, retry_seconds = self._call
        chance = np.random.default_rng(self.ident)
        while not self._end.is_set():
            first = int(chance.integers(len(images) - 20))
            rows = slice(first, first + int(chance.integers(1, 20)))
            try:
                predicted = post_images(uri, images[rows], retry_timeout=retry_seconds, timeout=30)
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
    """A service that classifies digits, 1,000 images, and the predictions of its model."""
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


def test_killed_scoring_process_is_restarted_under_load(digits, home, account):
    """Scoring process killed under load from 8 clients."""
    service, images, labels = digits
    stop = threading.Event()
    clients = [Load(service.scoring_uri, images, labels, seconds, stop) for seconds in (0, 10) * 4]
    for client in clients:
        client.start()
    slowest = 0.0
    for _ in range(8):
        served = sum(client.answers for client in clients)
        wait_until(lambda served=served: sum(client.answers for client in clients) > served + 20)
        victim = scoring_process(home)
        victim.kill()
        began = time.monotonic()
        wait_until(lambda victim=victim: not victim.is_running() or victim.status() == "zombie", 5)
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
    assert slowest < 15  # the third end in a minute is followed by a backoff
    assert all(str(error) for error in errors)
    account.found = (
        f"{answers} right answers, {len(errors)} error responses, 0 wrong; "
        f"ready again after {slowest:.1f} s at most"
    )
    wait_until(lambda: service.update_deployment_state() or service.state == "Healthy", 10)


def serves_again(uri: str, images, labels) -> None:
    def answers() -> bool:
        try:
            return np.array_equal(post_images(uri, images, retry_timeout=0, timeout=10), labels)
        except ScoringError:
            return False

    wait_until(answers, 20)


GROWS = """
held = []
def init(): pass
def run(raw):
    if raw == '"grow"':
        held.append(bytes([1]) * (700 << 20))
    return len(held)
"""


def test_scoring_process_is_restarted_after_the_memory_limit(workspace, account):
    """A service that exceeds `memory_gb`."""
    service = deploy(workspace, "grows", GROWS, memory_gb=0.5)
    score = service.scoring_uri
    for turn in range(1, 4):
        with contextlib.suppress(requests.ConnectionError):  # it may be ended before it answers
            requests.post(score, '"grow"', timeout=30)
        wait_until(lambda turn=turn: service.get_logs().count("more than the 0.5 GB") == turn, 10)
        # After the third exit within a minute the fallback responder answers for a while.
        wait_until(lambda: requests.post(score, '"look"', timeout=30).text == "0", 20)
        account.times += 1
    assert service.get_logs().count("the scoring process is restarted") == 3
    account.found = "killed, restarted, and its log has the reason"


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
                           AciWebservice.deploy_configuration(cpu_cores=1, memory_gb=1))
    service.wait_for_deployment()
assert service.run("{{}}") == 1
print("READY", os.getpid())
"""


def test_services_end_with_their_killed_kernel(home, tmp_path, account):
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
            control_plane = psutil.Process(ControlPlaneAddress.read(home / "run").pid)
            process_tree = [control_plane, *control_plane.children(recursive=True)]
            assert len(process_tree) >= 1 + 2, process_tree
            ports = {
                connection.laddr.port
                for process in process_tree
                for connection in process.net_connections("inet")
                if connection.status == psutil.CONN_LISTEN
            }
            assert len(ports) == 3
            psutil.Process(kernel).kill()
            began = time.monotonic()
            try:
                wait_until(
                    lambda process_tree=process_tree, ports=ports: not left(process_tree, ports), 5
                )
            except AssertionError:
                account.lost.append(str(left(process_tree, ports)))
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


def left(process_tree: list[psutil.Process], ports: set[int]) -> list:
    running = [p for p in process_tree if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]
    open_ports = [
        connection.laddr.port
        for connection in psutil.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN and connection.laddr.port in ports
    ]
    return running + open_ports


ODD = """
import subprocess, sys, time
starts, large = [], b"x" * (8 << 20)
def init():
    global child
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"],
                             start_new_session=True)
def pieces():
    for piece in range(5):
        starts.append(time.monotonic())
        time.sleep(0.05)
        yield f"{piece} "
def run(raw):
    from azureml_inference_server_http.api.aml_response import AMLResponse
    if raw == "sleep":
        time.sleep(60)
    if raw == "stream":
        return AMLResponse(pieces(), 200)
    if raw == "starts":
        return starts
    if raw == "endless":
        return AMLResponse(iter(lambda: time.sleep(0.1) or "x", ""), 200)
    if raw == "large":
        return AMLResponse(large, 200)
    return {"child": child.pid}.get(raw, raw)
"""
POST = b"POST /score HTTP/1.1\r\nHost: x\r\n"


def connect(service) -> socket.socket:
    at = urlsplit(service.scoring_uri)
    return socket.create_connection((at.hostname, at.port), timeout=30)


def answer(service, body="{}", timeout: float = 30) -> requests.Response:
    return requests.post(service.scoring_uri, body, timeout=timeout)


@pytest.fixture
def odd(workspace):
    """A service that sleeps, streams, answers at length, and has started a child."""
    return deploy(workspace, "odd", ODD, variables={"SCORING_TIMEOUT_MS": "1000"})


@contextlib.contextmanager
def crowd(service, size: int, opening: bytes) -> Iterator[list[socket.socket]]:
    with contextlib.ExitStack() as stack:
        connections = [stack.enter_context(connect(service)) for _ in range(size)]
        for connection in connections:
            connection.sendall(opening)
        yield connections


SLOW = {
    "64 unfinished heads": (64, POST, b"A"),
    "64 bodies of a byte at a time": (64, POST + b"Content-Length: 999\r\n\r\nthe beginning", b"."),
    "300 silent connections": (300, b"", b""),
    "32 clients that never read their answers": (32, POST + b"Content-Length: 5\r\n\r\nlarge", b""),
}


@pytest.mark.parametrize("kind", SLOW)
def test_slow_clients_delay_no_other_client(kind, odd, account):
    """Slow clients delay no other client."""
    size, opening, drop = SLOW[kind]
    slowest = 0.0
    with crowd(odd, size, opening) as connections:
        for _ in range(5):
            for connection in connections:
                connection.sendall(drop)
            began = time.monotonic()
            try:
                answer(odd, timeout=5).raise_for_status()
            except requests.RequestException as error:
                account.lost.append(str(error))
            slowest = max(slowest, time.monotonic() - began)
            account.times += 1
    account.found = f"the next answer after {slowest * 1000:.0f} ms at most"
    assert slowest < 1, slowest


def test_body_with_a_wrong_key_is_rejected_before_it_is_read(workspace, account):
    """Six bodies of 200 MB with a wrong key."""
    service = deploy(workspace, "keyed", ODD, memory_gb=0.5, auth_enabled=True)
    key = {"Authorization": f"bearer {service.get_keys()[0]}"}  # schemes ignore case
    wrong = {"Authorization": "Bearer not-one-of-them"}
    body = b"x" * (200 << 20)

    def intrude(_: int) -> int:
        return requests.post(service.scoring_uri, body, headers=wrong, timeout=60).status_code

    with ThreadPoolExecutor(6) as pool:
        statuses = list(pool.map(intrude, range(6)))
    account.times = len(statuses)
    account.lost += [str(status) for status in statuses if status != 401]
    account.lost += re.findall(r".*more than the.*memory_gb.*", service.get_logs())
    assert requests.post(service.scoring_uri, "{}", headers=key, timeout=5).status_code == 200
    account.found = "401 each, and the service was not even restarted"


def test_unfinished_bodies_leave_memory_for_other_requests(odd, account):
    """24 bodies of 100 MB that are never finished, without a key."""
    opening = POST + b"Content-Length: 104857600\r\n\r\n"
    piece = b"x" * (100 << 20)

    def send(connection: socket.socket) -> None:
        with contextlib.suppress(OSError):  # disconnected, as it should be
            connection.sendall(piece[:-1])

    with crowd(odd, 24, opening) as connections, ThreadPoolExecutor(4) as pool:
        list(pool.map(send, connections))
        account.times = len(connections)
        if not answer(odd, timeout=5).ok:
            account.lost.append("a small request")
    account.lost += re.findall(r".*more than the.*memory_gb.*", odd.get_logs())
    account.found = "small requests are answered, and the service was not restarted"


def test_request_over_the_scoring_timeout_delays_no_other(odd, account):
    """A request over the scoring time-out, while ten others wait."""
    pid = answer(odd, "child").json()
    with ThreadPoolExecutor(11) as pool:
        stuck = pool.submit(answer, odd, "sleep")
        others = [pool.submit(answer, odd, "{}") for _ in range(10)]
        assert "Scoring timeout after 1000 ms" in stuck.result().text
        for other in others:
            account.times += 1
            if not other.result().ok:
                account.lost.append(other.result().text)
    assert answer(odd, "child").json() == pid, "its process was ended"
    account.found = "it got 500, the others their answers, from the same process"


def test_endless_response_ends_at_the_scoring_timeout(odd, account):
    """Four answers by generators at once, and one that never ends."""
    with ThreadPoolExecutor(4) as pool:
        texts = [a.text for a in pool.map(lambda _: answer(odd, "stream"), range(4))]
    account.times = len(texts) + 1
    assert texts == ["0 1 2 3 4 "] * 4
    starts = answer(odd, "starts").json()
    between = [later - earlier for earlier, later in pairwise(starts)]
    if min(between) < 0.049:
        account.lost.append("two ran at once")
    began = time.monotonic()
    with contextlib.suppress(requests.RequestException):  # it ends without its last piece
        answer(odd, "endless", timeout=5)
    assert time.monotonic() - began < 3
    assert answer(odd, timeout=5).ok
    account.found = "one after the other; the endless one was cut off at the scoring time-out"


def test_child_in_its_own_session_ends_with_the_service(odd, account):
    """A child that a script starts in a session of its own, and the service is deleted."""
    child = psutil.Process(answer(odd, "child").json())
    assert child.is_running()
    odd.delete()
    account.times = 1
    try:
        wait_until(lambda: is_gone(child), 5)
    except AssertionError:
        account.lost.append(str(child))
        child.kill()
    account.found = "it has ended with it"


def is_gone(process: psutil.Process) -> bool:
    try:
        return process.status() == psutil.STATUS_ZOMBIE or not process.is_running()
    except psutil.NoSuchProcess:
        return True


# Loss of a process beside a scoring process ends no scoring process.

ANSWERS = "import os\ndef init(): pass\ndef run(raw): return os.getpid()\n"


def deploy_aks(workspace, name: str, script: str, **more):
    from azureml.core import Environment, Model
    from azureml.core.compute import AksCompute, ComputeTarget
    from azureml.core.model import InferenceConfig
    from azureml.core.webservice import AksWebservice

    cluster = ComputeTarget.create(workspace, "cluster", AksCompute.provisioning_configuration())
    cluster.wait_for_completion()
    Path("aks.py").write_text(script)
    config = InferenceConfig("aks.py", source_directory=".", environment=Environment("plain"))
    resources = {"cpu_cores": 1, "memory_gb": 1, "num_replicas": 1, "auth_enabled": False, **more}
    service = Model.deploy(workspace, name, [], config,
                           AksWebservice.deploy_configuration(**resources), cluster)  # fmt: skip
    service.wait_for_deployment()
    return service


class Asker(threading.Thread):
    """Sends requests in a loop; records process ids, and every answer that is not 200."""

    def __init__(self, uri: str, stop: threading.Event) -> None:
        super().__init__(daemon=True)
        self.uri, self._end = uri, stop
        self.pids: set[int] = set()
        self.answers, self.errors = 0, []

    def run(self) -> None:
        while not self._end.is_set():
            try:
                got = requests.post(self.uri, "{}", timeout=30)
                got.raise_for_status()
            except requests.RequestException as error:
                self.errors.append(str(error))
                self._end.wait(0.05)
            else:
                self.answers += 1
                self.pids.add(got.json())


def helper(home: Path, module: str) -> psutil.Process:
    """The process of the control plane that runs a module of this package."""
    process_tree = psutil.Process(local.start(home).pid).children(recursive=True)
    [found] = [
        each
        for each in process_tree
        if each.status() != psutil.STATUS_ZOMBIE
        and each.name() != "scoring"  # a fork of the fork server, with the same command line
        and module in each.cmdline()
    ]
    return found


@pytest.mark.parametrize("sent", ["kill", "suspend"])
def test_services_survive_the_loss_of_the_fork_server(workspace, home, account, sent):
    """The fork server killed or suspended while two services answer under load."""
    services = [deploy(workspace, name, ANSWERS) for name in ("one", "two")]
    stop = threading.Event()
    clients = [Asker(service.scoring_uri, stop) for service in services]
    for client in clients:
        client.start()
    lost = helper(home, "mnist_deploy.local.scoring.fork_server")
    getattr(lost, sent)()
    account.times = 1
    third = deploy(workspace, "three", ANSWERS)
    assert third.run("{}") > 0
    assert helper(home, "mnist_deploy.local.scoring.fork_server").pid != lost.pid
    stop.set()
    for client in clients:
        client.join(30)
        account.lost += client.errors
        assert len(client.pids) == 1, "a service was restarted"
    third.delete()
    answers = sum(client.answers for client in clients)
    account.found = f"{answers} answers by the same two processes; another fork server"


@pytest.mark.parametrize("sent", ["kill", "suspend"])
def test_lost_router_is_replaced(workspace, home, account, sent):
    """The router of an AKS service killed or suspended while an ACI service answers."""
    aci, aks = deploy(workspace, "aci", ANSWERS), deploy_aks(workspace, "aks", ANSWERS)
    stop = threading.Event()
    client = Asker(aci.scoring_uri, stop)
    client.start()
    router = helper(home, "mnist_deploy.local.core.router")
    getattr(router, sent)()
    account.times = 1
    began = time.monotonic()
    assert requests.post(aks.scoring_uri, "{}", timeout=60).status_code == 200
    seconds = time.monotonic() - began
    stop.set()
    client.join(30)
    account.lost += client.errors
    aks.delete()
    wait_until(lambda: not router.is_running(), 5)
    account.found = f"routed again after {seconds:.1f} s; the other service lost no request"


def test_suspended_scoring_process_is_restarted(workspace, home, account):
    """A scoring process suspended; its liveness probe has 5 s."""
    probe = {"initial_delay_seconds": 1, "period_seconds": 1, "timeout_seconds": 1,
             "failure_threshold": 5}  # fmt: skip
    service = deploy_aks(workspace, "aks", ANSWERS, scoring_timeout_ms=60_000, **probe)
    before = service.run("{}")
    psutil.Process(before).suspend()
    began = time.monotonic()
    account.times = 1
    wait_until(lambda: "its liveness probe failed 5 times" in service.get_logs(), 30)
    after = requests.post(service.scoring_uri, "{}", timeout=30).json()
    if after == before:
        account.lost.append("the suspended process still answers")
    account.found = f"restarted, and answers after {time.monotonic() - began:.1f} s"


def test_request_above_the_limit_of_aks_is_rejected(workspace, account):
    """50 requests at once to a script that takes 2 s, where two are admitted."""
    script = "import time\ndef init(): pass\ndef run(raw): time.sleep(2); return 1\n"
    service = deploy_aks(workspace, "aks", script, max_request_wait_time=10_000)
    begun, statuses = time.monotonic(), []

    def ask(_: int) -> float:
        statuses.append(requests.post(service.scoring_uri, "{}", timeout=60).status_code)
        return time.monotonic() - begun

    with ThreadPoolExecutor(50) as pool:
        seconds = sorted(pool.map(ask, range(50)))
    account.times = 50
    if sorted(statuses) != [200, 200] + 48 * [503]:
        account.lost.append(str(sorted(statuses)))
    account.found = f"2 x 200 and 48 x 503, the latter within {seconds[47]:.1f} s"
