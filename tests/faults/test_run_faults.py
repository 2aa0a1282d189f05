"""Runs whose control plane or process is killed: nothing stays behind, and the end is recorded."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import psutil
import pytest

from mnist_deploy import local
from mnist_deploy.local.core.runs import INTERRUPTED

pytestmark = pytest.mark.faults

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


@pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning")  # the SDK's
@pytest.mark.parametrize("phase", ["submitted", "running", "finalizing"])
def test_run_fails_with_its_reason_when_its_control_plane_is_killed(home, phase):
    from azureml.core import Run

    run, numbers = submit(home, phase)
    pids = [] if phase == "submitted" else processes_of(numbers)
    if phase == "finalizing":
        wait_for(lambda: run.get_status() == "Finalizing")
    os.kill(local.start(home).pid, signal.SIGKILL)
    wait_for(lambda: not any(is_alive(pid) for pid in pids))
    again = Run.get(local.connect(home), run.id)
    assert again.get_status() == "Failed"
    assert again.get_details()["error"]["error"]["message"] == INTERRUPTED
    if phase == "submitted":  # the process may have started, and has ended with its supervisor
        wait_for(lambda: not numbers.exists() or not any(map(is_alive, processes_of(numbers))))


@pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning")  # the SDK's
def test_run_fails_when_its_process_is_killed(home):
    run, numbers = submit(home, "running")
    script, child = processes_of(numbers)
    os.kill(script, signal.SIGKILL)
    wait_for(lambda: run.get_status() == "Failed")
    assert "signal 9" in run.get_details()["error"]["error"]["message"]
    wait_for(lambda: not is_alive(child))


@pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning")  # the SDK's
def test_workspace_that_is_stopped_ends_its_runs(home):
    _, numbers = submit(home, "running")
    pids = processes_of(numbers)
    local.stop(home)
    assert not any(map(is_alive, pids))
