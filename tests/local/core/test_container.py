"""A container: its scoring processes are supervised, restarted and limited."""

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
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
import requests
from polling import PATIENCE, wait_until

from mnist_deploy.local import host
from mnist_deploy.local.authorization import hash_token
from mnist_deploy.local.core import container as container_module
from mnist_deploy.local.core import log as log_module
from mnist_deploy.local.core.container import ProcessContainer
from mnist_deploy.local.core.process import ScoringProcess
from mnist_deploy.local.core.runtime import AccessPolicy
from mnist_deploy.local.core.telemetry import BUCKETS
from mnist_deploy.local.platforms import ProbeSettings

KILL = getattr(signal, "SIGKILL", signal.SIGTERM)  # os.kill of Windows kills by any signal
POSIX = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signal or limit")

SCRIPT = """
import os
def init(): print("ready here")
def run(raw): return {"pid": os.getpid(), "raw": raw}
"""


@pytest.fixture
def build(tmp_path):
    """Build a container of a script, without starting it; returns it and its address."""
    built = []

    def do(script=SCRIPT, cores=1.0, memory=1.0, inner=None, options=None, **environment):
        folder = tmp_path / f"container{len(built)}"
        (folder / "app").mkdir(parents=True)
        (folder / "app" / "score.py").write_text(script)
        listener = socket.create_server(("127.0.0.1", 0))
        container = ProcessContainer(
            folder,
            None if inner else listener,
            inner,
            cpu_cores=cores,
            memory_gb=memory,
            environment={"AZUREML_ENTRY_SCRIPT": "score.py", **environment},
            **(options or {}),
        )
        built.append((container, listener))
        return container, f"http://127.0.0.1:{listener.getsockname()[1]}"

    yield do
    for container, listener in built:
        container.stop()
        listener.close()


def score(url: str, body: str = "{}") -> dict:
    answer = requests.post(f"{url}/score", body, timeout=10 * PATIENCE)
    assert answer.status_code == 200, answer.text
    return answer.json()


def list_processes(container: ProcessContainer) -> list[psutil.Process]:
    processes = [psutil.Process(pid) for pid in container.process_ids]
    return processes + [child for each in processes for child in each.children(recursive=True)]


def all_gone(processes: list[psutil.Process]) -> bool:
    return not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in processes)


def test_container_scores_until_it_is_stopped(build):
    container, url = build()
    assert container.start() is None
    assert container.state == "Healthy"
    assert score(url, "hello")["raw"] == "hello"
    assert "ready here" in container.log_tail(100)
    processes = list_processes(container)
    container.stop()
    wait_until(lambda: all_gone(processes), 2)
    assert not container.folder.exists()
    container.stop()


def test_container_can_be_stopped_while_its_process_is_forked(build, monkeypatch):
    def no_such_group(*_: int) -> None:  # as before the fork has made one of its own
        raise ProcessLookupError

    container, _ = build("import time\ndef init(): time.sleep(600)\ndef run(raw): pass")
    with ThreadPoolExecutor(2) as pool:
        starting = pool.submit(container.start)
        wait_until(lambda: list_processes(container))
        processes = list_processes(container)
        monkeypatch.setattr(os, "killpg", no_such_group, raising=False)
        pool.submit(container.stop).result(20)
        assert starting.result() == "it was stopped"
    wait_until(lambda: all_gone(processes), 2)


def test_script_sees_nothing_of_the_surrounding_environment(build, monkeypatch):
    monkeypatch.setenv("AZURE_CLIENT_SECRET", "not for scripts")
    script = "import os\ndef init(): pass\ndef run(raw): return dict(os.environ)\n"
    container, url = build(script, GREETING="hello")
    container.start()
    seen = score(url)
    assert "AZURE_CLIENT_SECRET" not in seen
    assert seen["GREETING"] == "hello"


def test_folder_of_the_script_is_last_on_the_python_path(build):
    script = "import sys, os\ndef init(): pass\ndef run(raw): return [os.getcwd(), sys.path]\n"
    container, url = build(script)
    container.start()
    folder, path = score(url)
    assert folder == str(container.folder / "app")
    assert folder in path
    assert path.index(folder) > max(n for n, entry in enumerate(path) if "site-packages" in entry)


def test_supervision_continues_after_an_oserror(build, monkeypatch):
    looks = []

    def fail(process: ScoringProcess) -> int:
        looks.append(process)
        raise OSError("no file descriptor is left")

    container, _ = build()
    monkeypatch.setattr(container_module, "MEMORY_INTERVAL", 0.01)
    monkeypatch.setattr(container_module, "IDLE_INTERVAL", 0.01)
    monkeypatch.setattr(ScoringProcess, "memory_used", fail)
    container.start()
    wait_until(lambda: len(looks) > 1)


@pytest.mark.parametrize("sent", sorted({signal.SIGSEGV, KILL, signal.SIGTERM}))
def test_killed_process_is_restarted(build, sent):
    container, url = build()
    container.start()
    before = score(url)["pid"]
    os.kill(before, sent)

    def is_back():
        try:
            return score(url)["pid"] != before
        except requests.RequestException:  # the ending process has accepted the connection
            return False

    wait_until(is_back)
    wait_until(lambda: container.state == "Healthy" and container.problem is None)
    assert "the scoring process is restarted: it " in container.log_tail(100)


def test_requests_wait_during_a_restart(build):
    container, url = build()
    container.start()
    for process in list_processes(container):
        process.kill()
    assert score(url)["raw"] == "{}"  # the port was never closed


def test_container_is_killed_above_its_memory_limit_and_logs_it(build):
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
    with contextlib.suppress(requests.ConnectionError):  # it may be killed before it answers
        score(url)
    wait_until(lambda: container.state == "Healthy" and "is restarted" in container.log_tail(100))
    assert "more than the 0.4 GB of memory_gb" in container.log_tail(100)


def test_container_that_needs_too_much_memory_for_init_fails(build):
    script = (
        "def init():\n    global x\n    x = b'x' * (900 << 20)\n    import time; time.sleep(60)\n"
    )
    container, _ = build(script + "def run(raw): pass\n", memory=0.3)
    assert "memory_gb" in container.start()
    assert container.state == "Failed"


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("raise ValueError('at import')", "init() raised: ValueError: at import"),
        ("def init(): 1 / 0", "init() raised: ZeroDivisionError: division by zero"),
        ("import os\ndef init(): os.environ['NO[\"]SUCH']", "KeyError: 'NO[\"]SUCH'"),
        ("import helpers_of_mine", "source_directory="),
        ("import os\ndef init(): os._exit(7)", "it ended with exit status 7"),
        pytest.param(
            "import os\ndef init(): os.kill(os.getpid(), 11)",
            "it was ended by the signal SIGSEGV",
            marks=POSIX,
        ),
        pytest.param(
            "import os\ndef init(): os.kill(os.getpid(), 9)",
            "it was ended by the signal SIGKILL",
            marks=POSIX,
        ),
    ],
)
def test_container_that_cannot_start_reports_the_reason_and_leaves_no_process(
    build, script, reason
):
    container, _ = build(script + "\ndef run(raw): pass\n")
    assert reason in container.start()
    assert container.state == "Failed"
    assert container.process_ids == []


def test_init_that_exceeds_the_liveness_probe_is_killed(build):
    probe = ProbeSettings(initial_delay=0.5, period=0.5, failure_threshold=2)
    container, _ = build(
        "import time\ndef init(): time.sleep(600)\ndef run(raw): pass",
        options={"liveness": probe},
    )
    assert "init() did not return within 1.5 s" in container.start()


FAST_PROBE = ProbeSettings(initial_delay=5, period=0.2, timeout=0.2, failure_threshold=3)


@pytest.mark.processes
def test_suspended_process_fails_its_liveness_probe_and_is_restarted(build):
    container, url = build(options={"liveness": FAST_PROBE})
    container.start()
    before = score(url)["pid"]
    psutil.Process(before).suspend()
    wait_until(lambda: "its liveness probe failed 3 times" in container.log_tail(100))
    assert score(url)["pid"] != before
    wait_until(lambda: container.state == "Healthy")


@pytest.mark.processes
def test_liveness_probe_succeeds_while_a_request_runs(build):
    script = "import time\ndef init(): pass\ndef run(raw): time.sleep(8); return 1\n"
    container, url = build(script, options={"liveness": FAST_PROBE})
    container.start()
    assert score(url) == 1
    assert "liveness probe failed" not in container.log_tail(100)


@POSIX
@pytest.mark.processes
def test_process_without_file_descriptors_logs_the_reason_and_is_restarted(build):
    script = """
import os, resource
held = []
def init(): resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
def run(raw):
    try:
        while True: held.append(os.open("/dev/null", os.O_RDONLY))
    except OSError: return os.getpid()
"""
    container, url = build(script, options={"liveness": FAST_PROBE})
    container.start()
    with requests.Session() as kept:  # its connection holds a descriptor
        before = kept.post(f"{url}/score", "{}", timeout=10).json()
        with contextlib.suppress(requests.RequestException):
            requests.post(f"{url}/score", "{}", timeout=20)
    wait_until(lambda: "No connection can be accepted" in container.log_tail(1000))
    wait_until(lambda: "its liveness probe failed" in container.log_tail(1000))
    assert score(url) != before


@POSIX
@pytest.mark.parametrize("line", ["no JSON", "[1]", "3", '{"pong": []}', '{"requests": "x"}'])
def test_line_that_a_script_writes_to_the_control_channel_is_ignored(build, line):
    script = f"""
import os, socket
def init():
    for fd in os.listdir("/proc/self/fd"):
        try:
            if socket.socket(fileno=os.dup(int(fd))).family == socket.AF_UNIX:
                os.write(int(fd), {line!r}.encode() + b"\\n")
        except OSError: pass
def run(raw): return os.getpid()
"""
    container, url = build(script)
    assert container.start() is None
    before = score(url)
    os.kill(before, KILL)
    assert score(url) != before
    assert "is not JSON" in container.log_tail(100)


def test_error_of_the_supervision_fails_the_container_with_its_reason(build, monkeypatch):
    def fail(process: ScoringProcess) -> None:
        raise RuntimeError("on purpose")

    container, _ = build()
    monkeypatch.setattr(ScoringProcess, "read_reports", fail)
    assert container.start() == "its supervision failed: RuntimeError: on purpose"
    assert container.state == "Failed"


@pytest.mark.parametrize("variables", [{"A=B": "x"}, {"A": "x\0y"}], ids=["equals", "NUL"])
def test_impossible_variable_fails_the_container_and_is_named(build, variables):
    container, _ = build(**variables)
    assert "environment variable" in container.start()


@pytest.mark.processes
@pytest.mark.skipif(sys.platform != "linux", reason="child subreapers are Linux's")
def test_daemons_of_a_script_end_with_their_container(build):
    script = """
import os, subprocess, sys
SLEEP = ("import os, time; os.fork() and os._exit(0); os.setsid(); os.fork() and os._exit(0); "
         "print(os.getpid(), flush=True); time.sleep(600)")
def init(): pass
def run(raw):
    found = []
    for prefix in ([], ["env", "-i", "setsid"]):
        child = subprocess.Popen([*prefix, sys.executable, "-c", SLEEP], stdout=subprocess.PIPE)
        found.append(int(child.stdout.readline()))
    return found
"""
    container, url = build(script)
    container.start()
    daemons = [psutil.Process(pid) for pid in score(url)]
    container.stop()
    wait_until(lambda: all_gone(daemons), 5)


def test_process_that_cannot_be_restarted_is_retried(build):
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
    for process in list_processes(container):
        process.kill()
    wait_until(lambda: "trying again" in container.log_tail(100))
    assert container.state == "Unhealthy"
    broken.unlink()
    wait_until(lambda: container.state == "Healthy")
    assert isinstance(score(url), int)


def test_access_policy_can_change_while_the_container_runs(build):
    container, url = build()
    container.configure(
        AccessPolicy(
            keys=("one", "two"),
            tokens={hash_token("old"): 1.0, hash_token("new"): time.time() + 99},
        )
    )
    container.start()

    def status(authorization: str) -> int:
        headers = {"Authorization": authorization}
        return requests.post(f"{url}/score", "{}", headers=headers, timeout=10).status_code

    for good in ("Bearer one", "Bearer two", "bearer two", "Bearer new"):
        assert status(good) == 200
    for bad in ("", "one", "Bearer", "Bearer ", "Bearer on", "Bearer one ", "Basic one",
                "Bearer old", "Bearer \xe9"):  # fmt: skip
        assert (bad, status(bad)) == (bad, 401)
    assert requests.get(url, timeout=10).status_code == 200  # the health route
    for round_ in range(50):
        container.configure(AccessPolicy(keys=(f"key{round_}",)))
        assert status(f"Bearer key{round_}") == 200
        assert status(f"Bearer key{round_ - 1}") == 401
    container.configure(AccessPolicy(keys=()))
    assert status("Bearer ") == 401
    container.configure(AccessPolicy())
    assert status("") == 200
    assert "key49" not in container.log_tail(1000) + repr(AccessPolicy(keys=("key49",)))


def test_access_policy_can_be_set_until_the_container_has_stopped(build):
    container, url = build()
    container.start()
    with requests.Session() as kept, ThreadPoolExecutor(2) as pool:
        assert kept.post(f"{url}/score", "{}", timeout=10).status_code == 200
        stopping = pool.submit(container.stop)  # and the connection is kept for a while
        applied = 0
        while not stopping.done():
            pool.submit(container.configure, AccessPolicy(keys=(f"key{applied}",))).result()
            applied += 1
        stopping.result()
    assert applied > 1  # the policy was not applied at the end of the stop alone
    container.configure(AccessPolicy())


def test_container_behind_a_router_accepts_there_alone_and_requires_no_key(build):
    inner, address = host.networking.listen_privately(Path(host.networking.socket_folder()))
    container, url = build(inner=inner)
    container.configure(AccessPolicy(keys=("key",)))
    container.start()
    with socket.socket(inner.family) as client:
        client.connect(inner.getsockname())
        client.sendall(b"POST /score HTTP/1.0\r\n\r\n")
        assert client.makefile("rb").read().startswith(b"HTTP/1.1 200 ")
    with pytest.raises(requests.ReadTimeout):
        requests.get(url, timeout=0.5)
    host.networking.close_privately(inner, address)


def test_container_rejects_requests_until_its_access_policy_is_set(build):
    container, url = build()
    container.configure(AccessPolicy(public=False))
    container.start()
    with pytest.raises(requests.ReadTimeout):
        requests.get(url, timeout=0.5)
    container.configure(AccessPolicy())
    assert requests.get(url, timeout=5).status_code == 200


def test_processes_follow_worker_count_and_threads_the_cores(build):
    script = """
import os
def init(): pass
def run(raw): return [os.getpid(), os.environ["OMP_NUM_THREADS"]]
"""
    container, url = build(script, cores=1.5, WORKER_COUNT="2")
    container.start()
    answers = [score(url) for _ in range(200)]
    assert len({pid for pid, _ in answers}) == 2
    assert {threads for _, threads in answers} == {"2"}
    os.kill(answers[0][0], KILL)
    assert container.state == "Healthy"
    assert all(score(url) for _ in range(20))
    for odd in ("0", "many", "65", "", "\u00b2", "9" * 5000):
        assert "WORKER_COUNT" in build(WORKER_COUNT=odd)[0].start()


def test_answered_requests_are_counted(build):
    container, url = build()
    container.start()
    for _ in range(3):
        score(url)
    requests.get(url, timeout=5)
    requests.get(f"{url}/nowhere", timeout=5)
    wait_until(lambda: container.requests["requests"] == 4, 5)
    os.kill(score(url)["pid"], KILL)
    score(url)
    counts = wait_until(lambda: container.requests["requests"] > 4 and container.requests, 5)
    assert counts["failed"] == 1
    assert len(counts["histogram"]) == len(BUCKETS) + 1
    assert sum(counts["histogram"]) == counts["requests"]


def test_stopping_container_answers_the_requests_that_have_arrived(build):
    script = "import time\ndef init(): pass\ndef run(raw): time.sleep(0.3); return raw\n"
    container, url = build(script)
    container.start()
    with ThreadPoolExecutor(5) as pool:
        answers = [pool.submit(score, url, f"{n}") for n in range(5)]
        time.sleep(0.2)  # all are in the process: one runs, four wait
        container.stop()
        assert [each.result() for each in answers] == ["0", "1", "2", "3", "4"]


def test_container_that_does_not_stop_is_killed_after_the_grace_period(build):
    container, url = build("import time\ndef init(): pass\ndef run(raw): time.sleep(60)\n")
    container.start()
    with ThreadPoolExecutor(1) as pool:
        stuck = pool.submit(score, url)
        wait_until(lambda: psutil.Process(list_processes(container)[0].pid).num_threads() > 0)
        time.sleep(0.2)
        began = time.monotonic()
        container.stop(grace=0.5)
        assert time.monotonic() - began < 10
        assert isinstance(stuck.exception(), requests.ConnectionError)


def test_connection_serves_many_requests_with_rejected_ones_between(build):
    container, url = build()
    container.configure(AccessPolicy(keys=("key",)))
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


def test_log_has_a_size_limit(build, monkeypatch):
    monkeypatch.setattr(log_module, "MAX_SIZE", 100_000)
    script = "def init(): pass\ndef run(raw):\n    print('x' * 9_999)\n    return 1\n"
    container, url = build(script)
    container.start()
    for _ in range(50):
        score(url)
    wait_until(lambda: (container.folder / "container.log").stat().st_size <= 100_000)
    score(url)
    assert "POST /score 200" in container.log_tail(10)
    assert len(container.log_tail(2).splitlines()) == 2
    assert container.log_tail(0) == ""


CONTROLLER = """
import socket, sys
from pathlib import Path
from mnist_deploy.local.core.container import ProcessContainer
from mnist_deploy.local.core.runtime import AccessPolicy
from mnist_deploy.local.core.telemetry import BUCKETS
container = ProcessContainer(Path(sys.argv[1]), socket.create_server(("127.0.0.1", 0)), cpu_cores=1,
                      memory_gb=1,
                      environment={"AZUREML_ENTRY_SCRIPT": "score.py", "WORKER_COUNT": "2"})
assert container.start() is None
print(*container.process_ids, flush=True)
sys.stdin.read()
"""

BUSY = """
import signal, subprocess, sys, time
def init():
    for name in ("SIGTERM", "SIGINT", "SIGHUP"):
        if hasattr(signal, name): signal.signal(getattr(signal, name), signal.SIG_IGN)
    for own_session in (False, True):
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"],
                         start_new_session=own_session)
def run(raw): time.sleep(600)
"""


@pytest.mark.processes
@pytest.mark.parametrize("script", [SCRIPT, BUSY], ids=["idle", "stubborn"])
def test_processes_end_with_a_killed_control_plane(tmp_path, script):
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "score.py").write_text(script)
    controller = subprocess.Popen(
        [sys.executable, "-c", CONTROLLER, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    workers = [psutil.Process(int(pid)) for pid in controller.stdout.readline().split()]
    processes = psutil.Process(controller.pid).children(recursive=True)
    assert set(workers) < set(processes)
    expected = (2 if script == SCRIPT else 6) + host.processes.CAN_FORK  # with a fork server
    assert len(processes) == expected or sys.platform == "win32"  # which adds hidden consoles
    os.kill(controller.pid, KILL)
    controller.communicate()
    wait_until(lambda: all_gone(processes), 5)
