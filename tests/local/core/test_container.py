"""A container: one scoring process that is kept alive, and kept small."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time

import psutil
import pytest
import requests
from weights_service import until

from mnist_deploy.local.core import container as container_module
from mnist_deploy.local.core.container import Container

SCRIPT = """
import os
def init(): print("ready here")
def run(raw): return {"pid": os.getpid(), "raw": raw}
"""


@pytest.fixture
def build(tmp_path):
    """Build a container of a script, without starting it; the caller gets its address too."""
    built = []

    def do(script=SCRIPT, cores=1.0, memory=1.0, **environment):
        folder = tmp_path / f"container{len(built)}"
        (folder / "app").mkdir(parents=True)
        (folder / "app" / "score.py").write_text(script)
        listener = socket.create_server(("127.0.0.1", 0))
        container = Container(
            folder,
            listener,
            cpu_cores=cores,
            memory_gb=memory,
            environment={"AZUREML_ENTRY_SCRIPT": "score.py", **environment},
        )
        built.append((container, listener))
        return container, f"http://127.0.0.1:{listener.getsockname()[1]}"

    yield do
    for container, listener in built:
        container.stop()
        listener.close()


def score(url: str, body: str = "{}") -> dict:
    answer = requests.post(f"{url}/score", body, timeout=10)
    assert answer.status_code == 200, answer.text
    return answer.json()


def family(container: Container) -> list[psutil.Process]:
    arbiter = psutil.Process(container._process.pid)
    return [arbiter, *arbiter.children(recursive=True)]


def all_gone(processes: list[psutil.Process]) -> bool:
    return not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in processes)


def test_it_scores_until_it_is_stopped(build):
    container, url = build()
    assert container.start() is None
    assert container.state == "Healthy"
    assert score(url, "hello")["raw"] == "hello"
    assert "ready here" in container.log_tail(100)
    processes = family(container)
    container.stop()
    until(lambda: all_gone(processes), 2)
    assert not container.folder.exists()
    container.stop()


def test_it_sees_nothing_of_the_environment_around_it(build, monkeypatch):
    monkeypatch.setenv("AZURE_CLIENT_SECRET", "not for scripts")
    script = "import os\ndef init(): pass\ndef run(raw): return dict(os.environ)\n"
    container, url = build(script, GREETING="hello")
    container.start()
    seen = score(url)
    assert "AZURE_CLIENT_SECRET" not in seen
    assert seen["GREETING"] == "hello"


def test_a_script_finds_its_folder_last_as_on_azure(build):
    script = "import sys, os\ndef init(): pass\ndef run(raw): return [os.getcwd(), sys.path]\n"
    container, url = build(script)
    container.start()
    folder, path = score(url)
    assert folder == str(container.folder / "app")
    assert folder in path
    assert path.index(folder) > max(n for n, entry in enumerate(path) if "lib/python" in entry)


@pytest.mark.parametrize(
    ("victim", "sent"),
    [("worker", signal.SIGSEGV), ("arbiter", signal.SIGKILL), ("both", signal.SIGTERM)],
)
def test_it_comes_back_after_it_was_killed(build, victim, sent):
    container, url = build()
    container.start()
    before = score(url)["pid"]
    arbiter, worker = family(container)
    for process in {"worker": [worker], "arbiter": [arbiter], "both": [arbiter, worker]}[victim]:
        process.send_signal(sent)

    def is_back():
        try:
            return score(url)["pid"] != before
        except requests.RequestException:  # that was answered by the dying one
            return False

    until(is_back)
    until(lambda: container.state == "Healthy")
    if victim != "worker":
        assert "ended with status" in container.log_tail(100)


def test_requests_wait_while_it_is_started_anew(build):
    container, url = build()
    container.start()
    for process in family(container):
        process.kill()
    assert score(url)["raw"] == "{}"  # the port was never closed


def test_one_that_outgrows_its_memory_is_ended_and_says_so(build):
    script = """
held = []
def init(): pass
def run(raw):
    held.append(bytearray(600 << 20))
    for place in range(0, 600 << 20, 4096): held[0][place] = 1
    return len(held)
"""
    container, url = build(script, memory=0.4)
    container.start()
    with contextlib.suppress(requests.ConnectionError):  # it may be ended before it answers
        score(url)
    until(lambda: container.state == "Healthy" and "restarting" in container.log_tail(100))
    assert "more than the 0.4 GB of memory_gb" in container.log_tail(100)


def test_one_that_needs_too_much_memory_from_the_start_fails(build):
    script = (
        "def init():\n    global x\n    x = b'x' * (900 << 20)\n    import time; time.sleep(60)\n"
    )
    container, _ = build(script + "def run(raw): pass\n", memory=0.3)
    assert "memory_gb" in container.start()
    assert container.state == "Failed"


@pytest.mark.parametrize(
    "script",
    ["raise ValueError('at import')", "def init(): 1 / 0\ndef run(raw): pass",
     "import os\ndef init(): os._exit(0)\ndef run(raw): pass",
     "import os\ndef init(): os.kill(os.getpid(), 11)\ndef run(raw): pass"],
)  # fmt: skip
def test_one_that_cannot_start_says_so_and_leaves_no_process(build, script):
    container, _ = build(script)
    assert "init() raised" in container.start()
    assert container.state == "Failed"
    assert container._process is None


def test_an_init_that_never_returns_is_given_up(build, monkeypatch):
    monkeypatch.setattr(container_module, "START_LIMIT", 1.5)
    container, _ = build("import time\ndef init(): time.sleep(600)\ndef run(raw): pass")
    assert "did not return" in container.start()


def test_one_that_can_start_no_more_is_tried_again_and_again(build):
    script = """
import os, pathlib
def init():
    if pathlib.Path("broken").exists(): raise RuntimeError("not now")
def run(raw): return os.getpid()
"""
    container, url = build(script)
    container.start()
    broken = container.folder / "app" / "broken"
    broken.touch()
    for process in family(container):
        process.kill()
    until(lambda: "trying again" in container.log_tail(100))
    assert container.state == "Unhealthy"
    broken.unlink()
    until(lambda: container.state == "Healthy")
    assert isinstance(score(url), int)


def test_keys_can_change_while_it_runs(build):
    container, url = build()
    container.set_keys(["one", "two"])
    container.start()

    def status(key: str) -> int:
        headers = {"Authorization": f"Bearer {key}"}
        return requests.post(f"{url}/score", "{}", headers=headers, timeout=10).status_code

    assert [status(key) for key in ("one", "two", "three", "")] == [200, 200, 401, 401]
    for round_ in range(50):  # faster than a file's time of change
        container.set_keys([f"key{round_}"])
        assert (status(f"key{round_}"), status(f"key{round_ - 1}")) == (200, 401)
    container.set_keys(None)
    assert status("") == 200
    keys = container.folder / "keys.json"
    assert keys.stat().st_mode & 0o077 == 0
    assert json.loads(keys.read_bytes()) is None


def test_one_connection_serves_many_requests_refused_ones_between(build):
    container, url = build()
    container.set_keys(["key"])
    container.start()
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=10)
    connection.connect()
    own_port = connection.sock.getsockname()
    large = b"x" * 3_000_000

    def chunks():
        yield from (b"one", b"two")

    for key, body, status in (
        ("key", b"a", 200),
        ("wrong", large, 401),  # its body must not be taken for the next request
        ("key", b"b", 200),
        ("wrong", chunks(), 401),
        ("key", chunks(), 200),
        ("key", large, 200),
    ):
        connection.request("POST", "/score", body, {"Authorization": f"Bearer {key}"})
        answer = connection.getresponse()
        content = json.loads(answer.read())
        assert answer.status == status, content
        if isinstance(body, bytes) and status == 200:
            assert content["raw"] == body.decode()
        assert connection.sock is not None
        assert connection.sock.getsockname() == own_port
    connection.close()


def test_senders_that_fall_silent_keep_nobody_waiting(build):
    container, url = build()
    container.start()
    host, port = url.removeprefix("http://").split(":")
    silent = [socket.create_connection((host, int(port))) for _ in range(20)]
    for connection in silent[:7]:
        connection.sendall(b"POST /score HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nonly")
    began = time.monotonic()
    score(url)
    assert time.monotonic() - began < 8
    for connection in silent:
        connection.close()


def test_the_log_does_not_grow_for_ever(build, monkeypatch):
    monkeypatch.setattr(container_module, "LOG_LIMIT", 100_000)
    script = "def init(): pass\ndef run(raw):\n    print('x' * 9_999)\n    return 1\n"
    container, url = build(script)
    container.start()
    for _ in range(50):
        score(url)
    until(lambda: container.log_file.stat().st_size <= 100_000)
    score(url)
    assert "POST /score 200" in container.log_tail(10)
    assert len(container.log_tail(2).splitlines()) == 2
    assert container.log_tail(0) == ""


CONTROLLER = """
import socket, sys
from pathlib import Path
from mnist_deploy.local.core.container import Container
container = Container(Path(sys.argv[1]), socket.create_server(("127.0.0.1", 0)), cpu_cores=2,
                      memory_gb=1, environment={"AZUREML_ENTRY_SCRIPT": "score.py"})
assert container.start() is None
print(container._process.pid, flush=True)
sys.stdin.read()
"""

BUSY = """
import signal, subprocess, sys, time
def init():
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
def run(raw): time.sleep(600)
"""


@pytest.mark.parametrize("script", [SCRIPT, BUSY], ids=["idle", "stubborn"])
def test_nothing_outlives_a_controller_that_is_killed(tmp_path, script):
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "score.py").write_text(script)
    controller = subprocess.Popen(
        [sys.executable, "-c", CONTROLLER, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    arbiter = psutil.Process(int(controller.stdout.readline()))
    processes = [arbiter, *arbiter.children(recursive=True)]
    assert len(processes) >= 3  # two workers, and what a script has started
    os.kill(controller.pid, signal.SIGKILL)
    controller.communicate()
    until(lambda: all_gone(processes), 5)
