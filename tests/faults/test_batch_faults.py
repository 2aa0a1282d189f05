"""Batch jobs whose processes or control plane are killed, or whose disk is full; their memory.

The first tests run the process of a batch job without a workspace, the others a whole job.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from polling import is_running, wait_until
from sdk_polling import fast_polls

from mnist_deploy import local
from mnist_deploy.local.core.runs import INTERRUPTED
from mnist_deploy.local.discovery import OTHER_IDENTITIES

pytestmark = pytest.mark.faults

WAIT = 120.0  # seconds that a condition may take on a busy machine
SCRIPT = """
import os, time
from pathlib import Path

PHASE = Path(os.environ["PHASE_FILE"])

def wait(phase):
    if PHASE.exists() and PHASE.read_text() == phase:
        with open(f"{PHASE}.pids", "a") as file:
            file.write(f"{os.getpid()}\\n")
        while PHASE.exists():
            time.sleep(0.05)

def init():
    wait("init")

def run(mini_batch):
    wait("run")
    size = int(os.environ.get("ROW_SIZE", "1"))
    return [os.path.basename(path) + "x" * (size - 1) for path in mini_batch]
"""
SETTINGS = {
    "script": "score.py",
    "workers": 2,
    "mini_batch_size": 10,
    "error_threshold": -1,
    "max_retries": 3,
    "timeout": WAIT,
    "output_file": "predictions.csv",
}
PEAK = """
import resource, sys
from mnist_deploy.local.scoring.batch import main
status = main(*sys.argv[1:])
print("peak", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
sys.exit(status)
"""


@pytest.fixture
def phase(tmp_path) -> Path:
    """A file: the script waits in the phase that it names as long as the file exists."""
    return tmp_path / "phase"


def pids_in(phase: Path) -> list[int]:
    """The processes of the script that wait."""
    file = Path(f"{phase}.pids")
    return [int(line) for line in file.read_text().split()] if file.exists() else []


@pytest.fixture
def score_files(tmp_path, phase):
    """Start the process of a batch job for `count` files; its output folder is ``out``."""
    (tmp_path / "out").mkdir()
    (tmp_path / "score.py").write_text(SCRIPT)
    started = []

    def start(count: int, before=None, variables=None, **settings) -> subprocess.Popen:
        folder = tmp_path / "in"
        folder.mkdir(exist_ok=True)
        for number in range(count):
            (folder / f"{number:06}").touch()
        arguments = [json.dumps(SETTINGS | settings), str(tmp_path / "out"), str(folder)]
        started.append(
            subprocess.Popen(
                [sys.executable, "-c", PEAK, *arguments],
                cwd=tmp_path,
                env={**os.environ, "PHASE_FILE": str(phase)} | (variables or {}),
                preexec_fn=before,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def lines_of(tmp_path: Path) -> list[str]:
    return sorted((tmp_path / "out" / "predictions.csv").read_text().split())


def all_files(count: int) -> list[str]:
    return [f"{number:06}" for number in range(count)]


def test_mini_batch_of_a_killed_worker_is_scored_once_more(score_files, tmp_path, phase, account):
    """Worker of a batch job killed while it scores."""
    phase.write_text("run")
    process = score_files(200)
    for _ in range(3):
        [victim, *_] = wait_until(lambda: list(filter(is_running, pids_in(phase))), WAIT)
        os.kill(victim, signal.SIGKILL)
        wait_until(lambda: not is_running(victim), WAIT)  # noqa: B023
        account.times += 1
    phase.unlink()
    output, _ = process.communicate(timeout=WAIT)
    assert process.returncode == 0, output
    assert output.count("its worker process ended (exit status -9)") == account.times
    if lines_of(tmp_path) != all_files(200):
        account.lost.append("rows are missing or written twice")
    account.found = "each row is in the file of results once"


def test_worker_that_times_out_is_killed_and_its_mini_batch_repeated(
    score_files, tmp_path, phase, account
):
    """Worker of a batch job that exceeds the time-out of a mini-batch."""
    phase.write_text("run")
    process = score_files(40, timeout=2.0, max_retries=50)
    victims = wait_until(lambda: len(pids_in(phase)) > 3 and pids_in(phase), WAIT)
    phase.unlink()
    output, _ = process.communicate(timeout=WAIT)
    account.times = output.count("it took longer than 2 s")
    assert process.returncode == 0, output
    assert account.times >= 2
    if lines_of(tmp_path) != all_files(40) or any(map(is_running, victims)):
        account.lost.append("rows are missing, or a worker runs on")
    account.found = "each row is in the file of results once, no process left"


def test_full_disk_fails_the_job_with_its_reason(score_files, account):
    """Disk full while results of a batch job are appended."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    process = score_files(400, before=limit, variables={"ROW_SIZE": "1000"})
    family = psutil.Process(process.pid).children(recursive=True)
    output, _ = process.communicate(timeout=WAIT)
    account.times = 1
    assert process.returncode == 1
    assert "The results cannot be written: " in output
    assert "Traceback" not in output
    wait_until(lambda: not any(is_running(each.pid) for each in family), WAIT)
    account.found = "the job has failed with the reason"


def test_memory_is_flat_for_many_files(score_files, tmp_path, account):
    """Peak memory of a batch job for a folder of 30,000 files instead of 300."""
    peaks = []
    for count in (300, 30_000):
        output, _ = score_files(count, mini_batch_size=100).communicate(timeout=10 * WAIT)
        peaks.append(int(output.rpartition("peak ")[2]) / 1024)
        assert lines_of(tmp_path) == all_files(count)
        (tmp_path / "out" / "predictions.csv").unlink()
    account.times = 2
    account.found = f"{peaks[0]:.0f} MB and {peaks[1]:.0f} MB"
    assert peaks[1] < peaks[0] + 16  # of which the names of the files are 3


# Whole jobs.


@pytest.fixture
def client(home, monkeypatch):
    """Connect to the workspace, as a new process would."""
    pytest.importorskip("azure.ai.ml")
    from azure.ai.ml.operations import _job_ops_helper

    for name in OTHER_IDENTITIES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AZURE_TOKEN_CREDENTIALS", "ManagedIdentityCredential")
    monkeypatch.setenv("MSI_ENDPOINT", "http://127.0.0.1:9/none")
    monkeypatch.setenv("AZUREML_CURRENT_CLOUD", "AzureCloud")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", os.environ.get("REQUESTS_CA_BUNDLE", ""))
    with fast_polls(_job_ops_helper):
        yield lambda: local.connect_client(home)


@pytest.fixture
def deployed(client, tmp_path, phase):
    """The name of a batch endpoint whose default deployment has the script."""
    from azure.ai.ml import entities

    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "score.py").write_text(SCRIPT)
    connected = client()
    environment = connected.environments.create_or_update(
        entities.Environment(name="batch", image="x/y", conda_file={"dependencies": []})
    )
    connected.compute.begin_create_or_update(entities.AmlCompute(name="cluster")).result()
    endpoint = entities.BatchEndpoint(name="batch-faults")
    connected.batch_endpoints.begin_create_or_update(endpoint).result()
    deployment = entities.ModelBatchDeployment(
        name="default",
        endpoint_name="batch-faults",
        environment=environment,
        code_configuration=entities.CodeConfiguration(str(tmp_path / "code"), "score.py"),
        compute="cluster",
        settings=entities.ModelBatchDeploymentSettings(
            mini_batch_size=10, environment_variables={"PHASE_FILE": str(phase)}
        ),
    )
    connected.batch_deployments.begin_create_or_update(deployment).result()
    endpoint.defaults = {"deployment_name": "default"}
    connected.batch_endpoints.begin_create_or_update(endpoint).result()
    return "batch-faults"


def test_job_fails_when_its_control_plane_is_killed_and_is_repeated(
    home, client, deployed, phase, tmp_path, account
):
    """Control plane killed in each phase of a batch job."""
    from azure.ai.ml import Input
    from azure.ai.ml.entities import Data

    (tmp_path / "files").mkdir()
    for name in all_files(30):
        (tmp_path / "files" / name).touch()
    data = client().data.create_or_update(Data(name="files", path=str(tmp_path / "files")))

    def invoke():
        return client().batch_endpoints.invoke(
            endpoint_name=deployed, input=Input(type="uri_folder", path=data.id)
        )

    for moment in ("submitted", "init", "run", "ended"):
        phase.write_text(moment)
        Path(f"{phase}.pids").unlink(missing_ok=True)
        job = invoke()
        if moment in ("init", "run"):
            wait_until(lambda: pids_in(phase), WAIT)
        elif moment == "ended":
            wait_until(lambda: client().jobs.get(job.name).status == "Completed", WAIT)  # noqa: B023
        os.kill(local.start(home).pid, signal.SIGKILL)
        wait_until(lambda: not any(map(is_running, pids_in(phase))), WAIT)
        found = client().jobs.get(job.name)
        if found.status != ("Completed" if moment == "ended" else "Failed"):
            account.lost.append(f"{moment}: {found.status}")
        if moment == "run":
            with pytest.raises(Exception, match=INTERRUPTED[:40]):
                client().jobs.stream(job.name)
        account.times += 1
    phase.unlink()
    again = invoke()
    for each in (job, again):
        client().jobs.stream(each.name)
        client().jobs.download(each.name, download_path=each.name, output_name="score")
        [file] = Path(each.name).rglob("predictions.csv")
        if sorted(file.read_text().split()) != all_files(30):
            account.lost.append(f"results of {each.name}")
    account.found = "jobs have failed with the reason, no process left; the next job is complete"
