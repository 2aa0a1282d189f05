"""Scoring processes that are forked, and that start on their own: a script sees no difference."""

from __future__ import annotations

import os
import signal
import socket
import sys

import psutil
import pytest
import requests
from polling import wait_until

from mnist_deploy.local.core import launch
from mnist_deploy.local.core.container import ProcessContainer

SCRIPT = """
import os, random, signal, sys
import numpy as np
def init(): print("hello from", os.environ["SERVICE"])
def run(raw):
    if raw == "die": os._exit(5)
    return {
        "pid": os.getpid(), "parent": os.getppid(), "session": os.getsid(0),
        "numbers": [random.random(), np.random.random()],
        "environment": {**os.environ}, "arguments": sys.argv[1:], "path": sys.path,
        "input": sys.stdin.read(), "files": sorted(os.listdir(f"/proc/self/fd")),
        "signals": [str(signal.getsignal(n)) for n in (signal.SIGCHLD, signal.SIGINT)],
    }
"""


@pytest.fixture
def serve(tmp_path):
    """Start a container and return what asks its script."""
    started = []

    def do(name: str, **more):
        folder = tmp_path / name
        (folder / "app").mkdir(parents=True)
        (folder / "app" / "score.py").write_text(SCRIPT)
        listener = socket.create_server(("127.0.0.1", 0))
        variables = {"AZUREML_ENTRY_SCRIPT": "score.py", "SERVICE": name}
        resources = {"cpu_cores": 1, "memory_gb": 1, "environment": variables, **more}
        container = ProcessContainer(folder, listener, **resources)
        started.append((container, listener))
        assert container.start() is None, container.log_tail(50)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/score"
        return container, lambda body="": requests.post(url, body, timeout=10).json()

    yield do
    for container, listener in started:
        container.stop()
        listener.close()


linux = pytest.mark.skipif(sys.platform != "linux", reason="there is a fork server on Linux only")


@pytest.mark.processes
@linux
def test_forked_process_looks_like_a_started_one(serve):
    _, ask = serve("afresh", cpu_cores=2)
    alone = ask()
    assert alone["parent"] == os.getpid()
    seen = []
    for name in ("one", "two"):
        container, ask = serve(name)
        seen.append(ask())
        assert container.log_tail(100).count("hello from") == 1
        assert f"hello from {name}" in container.log_tail(100)
    one, two = seen
    assert psutil.Process(one["parent"]).ppid() == os.getpid()
    assert one["parent"] == two["parent"]
    assert all(a != b for a, b in zip(one["numbers"], two["numbers"], strict=True))
    for each in seen:
        assert each["pid"] == each["session"]
    for what in ("arguments", "input", "signals"):
        assert one[what] == two[what] == alone[what]
    names = [set(each["environment"]) for each in (one, two, alone)]
    assert names[0] == names[1] == names[2]
    assert two["environment"]["SERVICE"] == "two"
    assert one["path"][:-1] == alone["path"][:-1]  # the last is its own folder
    assert len(one["files"]) <= len(alone["files"])


@linux
@pytest.mark.processes
def test_variables_that_the_interpreter_reads_at_start_prevent_a_fork(serve):
    for number, (name, value) in enumerate({"OMP_NUM_THREADS": "3", "PYTHONUTF8": "1"}.items()):
        environment = {"AZUREML_ENTRY_SCRIPT": "score.py", "SERVICE": "s", name: value}
        _, ask = serve(f"service{number}", environment=environment)
        assert ask()["parent"] == os.getpid()


@linux
def test_fork_reports_its_exit_status(serve):
    container, ask = serve("one")
    with pytest.raises(requests.ConnectionError):
        ask("die")
    wait_until(lambda: "it ended with exit status 5" in container.log_tail(100))
    assert ask()["pid"]


@pytest.mark.processes
@linux
@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGSTOP])
def test_services_survive_their_fork_server_which_is_replaced(serve, monkeypatch, sent):
    monkeypatch.setattr(launch, "FORK_TIMEOUT", 0.5)
    container, ask = serve("one")
    first = ask()
    psutil.Process(first["parent"]).send_signal(sent)
    other, ask_other = serve("two")
    assert ask()["pid"] == first["pid"]
    assert ask_other()["parent"] != first["parent"]
    os.kill(first["pid"], 9)
    assert ask()["parent"] not in (first["parent"], first["pid"])
    wait_until(lambda: container.state == "Healthy")
    other.stop()


@pytest.mark.processes
@linux
def test_fork_of_a_fork_server_that_is_suspended_can_be_stopped(serve):
    container, ask = serve("one")
    parent = psutil.Process(ask()["parent"])
    parent.suspend()
    container.stop(grace=0.1)
    assert not container.folder.exists()
    parent.kill()


@linux
def test_large_environment_is_forked_as_well(serve):
    _, ask = serve("one")
    large = {f"V{number}": "x" * 100_000 for number in range(5)}
    environment = {"AZUREML_ENTRY_SCRIPT": "score.py", "SERVICE": "large", **large}
    _, ask_large = serve("large", environment=environment)
    assert ask_large()["parent"] == ask()["parent"]


@pytest.mark.processes
@linux
def test_processes_start_without_a_fork_server(serve, monkeypatch):
    monkeypatch.setattr(launch, "fork_server", lambda: None)
    _, ask = serve("one")
    assert ask()["parent"] == os.getpid()


@linux
def test_fork_server_notices_the_end_of_a_process_that_left_a_message_unread():
    from mnist_deploy.local.scoring import fork_server  # which imports modules of Linux only

    ours, its = socket.socketpair()
    with its:
        its.send(b"answer")
        ours.close()
        assert fork_server.receive(its) is None
