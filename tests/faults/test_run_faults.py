"""Runs whose control plane or process is killed: nothing stays behind, and the end is recorded."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
import requests
from weights_service import WORKSPACE, make_inference_config

from mnist_deploy import local
from mnist_deploy.local.core import profiles
from mnist_deploy.local.core.job_engine import MAX_PROCESSES
from mnist_deploy.local.core.runs import INTERRUPTED

pytestmark = [
    pytest.mark.faults,
    pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning"),  # SDK's
]

WAIT = 60.0  # seconds that a condition may take on a busy machine
SCRIPT = """
import os, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"],
                         start_new_session=True)
with open(sys.argv[1], "w") as file:
    file.write(f"{os.getpid()} {child.pid}")
if sys.argv[2] == "finalizing":
    for number in range(2000):
        with open(f"outputs/{number}", "w") as file:
            file.write("x")
else:
    time.sleep(600)
"""


def wait_for(condition) -> None:
    deadline = time.monotonic() + WAIT
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        time.sleep(0.02)


def is_alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    yield tmp_path / "home"
    local.stop(tmp_path / "home")


def submit(home: Path, phase: str):
    """A run of `SCRIPT`, and the file that it writes the numbers of its processes to."""
    from azureml.core import Experiment, ScriptRunConfig

    Path("source").mkdir(exist_ok=True)
    Path("source/train.py").write_text(SCRIPT)
    numbers = Path("numbers").absolute()
    configuration = ScriptRunConfig(
        "source", script="train.py", arguments=[str(numbers), phase], compute_target="local"
    )
    return Experiment(local.connect(home), "faults").submit(configuration), numbers


def processes_of(numbers: Path) -> list[int]:
    wait_for(lambda: numbers.exists() and len(numbers.read_text().split()) == 2)
    return [int(number) for number in numbers.read_text().split()]


@pytest.mark.parametrize("phase", ["submitted", "queued", "running", "finalizing"])
def test_run_fails_with_its_reason_when_its_control_plane_is_killed(home, phase, account):
    """Control plane killed in a phase of a run."""
    from azureml.core import Run

    if phase == "queued":
        running = [submit(home, "running") for _ in range(MAX_PROCESSES)]
        wait_for(lambda: all(each.get_status() == "Running" for each, _ in running))
    run, numbers = submit(home, phase)
    if phase == "queued":
        assert run.get_status() == "Queued"
    pids = [] if phase == "submitted" else processes_of(numbers)  # of "queued": of another run
    if phase == "finalizing":
        wait_for(lambda: run.get_status() == "Finalizing")
    os.kill(local.start(home).pid, signal.SIGKILL)
    wait_for(lambda: not any(is_alive(pid) for pid in pids))
    again = Run.get(local.connect(home), run.id)
    assert again.get_status() == "Failed"
    assert again.get_details()["error"]["error"]["message"] == INTERRUPTED
    if phase == "submitted":  # the process may have started, and has ended with its supervisor
        wait_for(lambda: not numbers.exists() or not any(map(is_alive, processes_of(numbers))))
    account.times, account.found = 1, "failed with its reason, and no process is left"


def test_run_fails_when_its_process_is_killed(home, account):
    """Process of a run killed."""
    run, numbers = submit(home, "running")
    script, child = processes_of(numbers)
    os.kill(script, signal.SIGKILL)
    wait_for(lambda: run.get_status() == "Failed")
    assert "signal 9" in run.get_details()["error"]["error"]["message"]
    wait_for(lambda: not is_alive(child))
    account.times, account.found = 1, "failed with the signal; its child process has ended"


def test_workspace_that_is_stopped_ends_its_runs(home):
    _, numbers = submit(home, "running")
    pids = processes_of(numbers)
    local.stop(home)
    assert not any(map(is_alive, pids))


LARGE = """
with open("outputs/large.bin", "wb") as file:
    file.write(bytes(7 << 20))
"""


def test_run_fails_when_the_disk_is_full_while_its_outputs_are_uploaded(home, account):
    """Disk full while the outputs of a run are uploaded."""
    home.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=12m,mode=700", "tmpfs", str(home)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("a small file system can only be mounted by root")
    try:
        large = submit_script(home, LARGE)
        wait_for(lambda: large.get_status() == "Failed")
        error = large.get_details()["error"]["error"]
        assert error["code"] == "InsufficientStorage"
        assert "disk of the local workspace is full" in error["message"]
        assert large.get_file_names() == ["user_logs/std_log.txt"]
        small = submit_script(home, "open('outputs/small.txt', 'w').write('fits')")
        wait_for(lambda: small.get_status() == "Completed")
        assert "outputs/small.txt" in small.get_file_names()
        account.times, account.found = 1, "failed with the reason; the next run completes"
    finally:
        local.stop(home)
        subprocess.run(["umount", "-l", str(home)], capture_output=True)


def submit_script(home: Path, script: str):
    from azureml.core import Experiment, ScriptRunConfig

    Path("source").mkdir(exist_ok=True)
    Path("source/train.py").write_text(script)
    configuration = ScriptRunConfig("source", script="train.py", compute_target="local")
    return Experiment(local.connect(home), "faults").submit(configuration)


MANY = 200
# Each run counts the runs that are executed beside it.
COUNT = """mkdir "{0}/$AZUREML_RUN_ID" && ls "{0}" | wc -l >> "{1}"; sleep 0.05; \
rmdir "{0}/$AZUREML_RUN_ID"
"""


def test_many_runs_at_once_are_queued_with_bounded_processes(home, account):
    """200 runs submitted at once."""
    first = submit_script(home, "pass")
    wait_for(lambda: first.get_status() == "Completed")
    active, counts = Path("active").absolute(), Path("counts").absolute()
    active.mkdir()
    endpoint = local.start(home)
    plane = psutil.Process(endpoint.pid)
    with requests.Session() as session:
        session.trust_env, session.verify = False, str(endpoint.certificate)
        session.headers["Authorization"] = f"Bearer {endpoint.token}"
        body = {
            "SnapshotId": first.properties["ContentSnapshotId"],
            "Configuration": {"command": COUNT.format(active, counts), "target": "local"},
        }

        def send(number: int) -> int:
            path = f"/execution/v1.0{WORKSPACE}/experiments/faults/snapshotrun?runId=many{number}"
            return session.post(endpoint.url + path, json=body, timeout=60).status_code

        def statuses() -> Counter:
            runs = session.post(
                f"{endpoint.url}/history/v1.0{WORKSPACE}/experiments/faults/runs:query",
                json={"top": 500},
                timeout=60,
            ).json()["value"]
            return Counter(run["status"] for run in runs if run["runId"].startswith("many"))

        with ThreadPoolExecutor(16) as pool:
            assert set(pool.map(send, range(MANY))) == {200}
        threads = plane.num_threads()
        waiting = statuses()
        deadline = time.monotonic() + 10 * WAIT
        while (found := statuses()) != Counter(Completed=MANY):
            assert not found["Failed"]
            assert time.monotonic() < deadline, found
            time.sleep(0.5)
    beside = [int(line) for line in counts.read_text().split()]
    assert len(beside) == MANY
    account.times = MANY
    account.found = (
        f"{waiting['Queued']} waited; at most {max(beside)} processes at once, "
        f"{threads} threads in the control plane"
    )
    if max(beside) > MAX_PROCESSES:
        account.lost.append(f"{max(beside)} processes at once")
    assert threads < 100


SLEEP = """
import os, time

def init(): ...

def run(raw):
    with open({!r}, "w") as file:
        file.write(str(os.getpid()))
    time.sleep(600)
"""


def test_profile_fails_when_the_control_plane_is_killed_while_it_measures(home, account):
    """Control plane killed while a model is profiled."""
    pytest.importorskip("azureml.dataprep.rslex")
    from azureml.core import Dataset, Model
    from azureml.core.profile import ModelProfile

    ws, number = local.connect(home), Path("number").absolute()
    Path("rows").mkdir()
    Path("rows/rows.txt").write_text("number\n" + json.dumps({"data": [1]}) + "\n")
    datastore = ws.get_default_datastore()
    datastore.upload("rows", target_path="rows", show_progress=False)
    rows = Dataset.Tabular.from_delimited_files((datastore, "rows/rows.txt"), separator="\n")
    configuration = make_inference_config(Path("app"), SLEEP.format(str(number)))
    Model.profile(ws, "sleeping", [], configuration, input_dataset=rows)
    wait_for(lambda: number.exists() and number.read_text())
    pid = int(number.read_text())
    measuring = find_measuring_processes()
    assert measuring
    os.kill(local.start(home).pid, signal.SIGKILL)
    wait_for(lambda: not any(map(is_alive, [pid, *measuring])))
    profile = ModelProfile(local.connect(home), "sleeping")
    assert profile.state == "Failed"
    assert profile.error["message"] == profiles.INTERRUPTED
    account.times, account.found = 1, "failed with its reason, and no process is left"


def find_measuring_processes() -> list[int]:
    found = {
        each.pid: " ".join(each.info["cmdline"] or ()) for each in psutil.process_iter(["cmdline"])
    }
    program, here = "mnist_deploy.local.programs.profile", str(Path.cwd())
    return [pid for pid, command in found.items() if program in command and here in command]
