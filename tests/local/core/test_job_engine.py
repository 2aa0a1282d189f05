"""The job engine: its queue and its records with a process in memory, and real process trees."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import psutil
import pytest
from polling import PATIENCE, wait_until

from mnist_deploy.local.core.faults import Full
from mnist_deploy.local.core.job_engine import JobEngine
from mnist_deploy.local.core.job_process import launch_job
from mnist_deploy.local.core.runs import INTERRUPTED, LOG_FILE, Job, OutputRules


class FakeProcess:
    """A process that ends when the test allows it."""

    started: list[FakeProcess] = []  # noqa: RUF012

    def __init__(self, command, directory: Path, variables, log: Path) -> None:
        self.directory, self.variables, self.log = directory, variables, log
        self.is_killed = False
        self._status: int | None = None
        self._ended = threading.Event()
        self.started.append(self)

    def end(self, status: int = 0, text: str = "") -> None:
        with open(self.log, "a") as file:
            file.write(text)
        self._status = status
        self._ended.set()

    def wait(self, seconds: float) -> int | None:
        return self._status if self._ended.wait(min(seconds, 0.01)) else None

    def kill(self) -> None:
        self.is_killed = True


@pytest.fixture
def engine(runs, tmp_path, monkeypatch):
    monkeypatch.setattr(FakeProcess, "started", [])
    made = JobEngine(runs, tmp_path / "jobs", FakeProcess, lambda run: {"RUN": run.id}, 2)
    yield made
    made.stop()


@pytest.fixture
def real_engine(runs, tmp_path):
    made = JobEngine(runs, tmp_path / "jobs", launch_job, lambda run: {})
    yield made
    made.stop()


def submit(engine: JobEngine, run_id: str, parent: str = "", **job) -> None:
    runs = engine.runs
    experiment = runs.create_experiment("digits")
    job.setdefault("command", ("python", "t.py"))
    engine.submit(runs.create(experiment, run_id, parent, kind="script", job=Job(**job)))


def status(engine: JobEngine, run_id: str) -> str:
    return engine.runs.get(run_id).status


def test_run_completes_with_its_log_and_outputs(engine, runs):
    submit(engine, "r1", variables={"X": "1"})
    wait_until(lambda: status(engine, "r1") == "Running")
    [process] = FakeProcess.started
    assert process.variables == {"RUN": "r1", "X": "1"}
    (process.directory / "outputs" / "model.pkl").write_bytes(b"m")
    process.end(text="epoch 1")
    wait_until(lambda: runs.get("r1").is_terminal)
    run = runs.get("r1")
    assert run.status == "Completed"
    assert run.started < run.ended
    log = runs.store.artifact(f"{run.artifacts}/{LOG_FILE}")
    assert log.file.read_text() == "epoch 1\n"  # only whole lines are sent while a run is active
    assert runs.store.artifact(f"{run.artifacts}/outputs/model.pkl")
    assert not process.directory.exists()


def test_more_runs_than_processes_wait_in_the_queue(engine):
    for n in range(200):
        submit(engine, f"r{n}")
    wait_until(lambda: len(FakeProcess.started) == 2)
    assert status(engine, "r100") == "Queued"
    seen = 0
    while seen < 200:
        wait_until(lambda: len(FakeProcess.started) > seen)  # noqa: B023
        assert len(FakeProcess.started) - seen <= 2
        FakeProcess.started[seen].end()
        seen += 1
    wait_until(lambda: all(run.status == "Completed" for run in engine.runs.select_runs()))


def test_child_run_starts_although_its_parents_have_all_processes(engine):
    submit(engine, "p1")
    submit(engine, "p2")
    wait_until(lambda: len(FakeProcess.started) == 2)
    submit(engine, "child", parent="p1")
    wait_until(lambda: status(engine, "child") == "Running")


def test_queued_run_that_is_canceled_never_starts(engine, runs):
    for name in ("r1", "r2", "r3"):
        submit(engine, name)
    wait_until(lambda: len(FakeProcess.started) == 2)
    engine.cancel("r3")
    assert status(engine, "r3") == "Canceled"
    for process in list(FakeProcess.started):
        process.end()
    wait_until(lambda: status(engine, "r1") == status(engine, "r2") == "Completed")
    assert len(FakeProcess.started) == 2


def test_failed_run_has_the_traceback_of_its_script(engine, runs):
    submit(engine, "r1")
    wait_until(lambda: len(FakeProcess.started) == 1)
    FakeProcess.started[0].end(
        1, "noise\nTraceback (most recent call last):\n  File t.py\nValueError: boom\n"
    )
    wait_until(lambda: status(engine, "r1") == "Failed")
    message = runs.get("r1").error["message"]
    assert message.startswith("The process of the run ended with exit status 1.\nTraceback")
    assert message.endswith("ValueError: boom")
    assert "noise" not in message


def test_run_that_reported_an_error_fails_although_its_process_succeeds(engine, runs):
    import dataclasses

    submit(engine, "r1")
    wait_until(lambda: status(engine, "r1") == "Running")
    error = {"code": "bad", "message": "accuracy too low"}
    runs.change("r1", lambda run: dataclasses.replace(run, error=error))
    FakeProcess.started[0].end()
    wait_until(lambda: status(engine, "r1") == "Failed")
    assert runs.get("r1").error == error


def test_run_whose_code_is_missing_fails_with_that_reason(engine, runs):
    submit(engine, "r1", code="gone:1")
    wait_until(lambda: status(engine, "r1") == "Failed")
    assert "There is no code gone:1" in runs.get("r1").error["message"]


def test_full_disk_fails_the_run_and_its_end_is_recorded_later(engine, runs, monkeypatch):
    monkeypatch.setattr("mnist_deploy.local.core.job_engine.RETRY_BACKOFF", 0.01)
    submit(engine, "r1")
    wait_until(lambda: status(engine, "r1") == "Running")
    original, rejected = runs.set_status, []

    def write(*_):
        raise Full

    def set_status(run_id, status, error=None):
        if status == "Failed" and len(rejected) < 3:
            rejected.append(status)
            raise Full
        return original(run_id, status, error)

    monkeypatch.setattr(runs.store, "write", write)
    monkeypatch.setattr(runs, "set_status", set_status)
    (FakeProcess.started[0].directory / "outputs" / "model.pkl").write_bytes(b"m")
    FakeProcess.started[0].end()
    wait_until(lambda: status(engine, "r1") == "Failed")
    assert rejected
    assert runs.get("r1").error["code"] == "InsufficientStorage"


def test_stopped_engine_kills_its_processes_and_fails_their_runs(engine, runs):
    for name in ("r1", "r2", "r3"):
        submit(engine, name)
    wait_until(lambda: len(FakeProcess.started) == 2)
    engine.stop()
    assert all(process.is_killed for process in FakeProcess.started)
    assert status(engine, "r1") == "Failed"
    assert runs.get("r1").error["message"] == INTERRUPTED
    runs.fail_interrupted()  # as the next start of the workspace does
    assert status(engine, "r3") == "Failed"


# Real processes.

TREE = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"],
                         start_new_session=True)
print("child", child.pid, flush=True)
time.sleep(300)
"""


def log_of(engine: JobEngine, run_id: str) -> str:
    run = engine.runs.get(run_id)
    found = engine.runs.store.artifact(f"{run.artifacts}/{LOG_FILE}")
    return found.file.read_text() if found else ""


def test_process_prints_to_the_log_while_it_runs(real_engine):
    submit(real_engine, "r1", command=("python", "-u", "-c", "print('hello'); 1/0"))
    wait_until(lambda: status(real_engine, "r1") == "Failed")
    assert log_of(real_engine, "r1").startswith("hello\nTraceback")
    assert "ZeroDivisionError" in real_engine.runs.get("r1").error["message"]


@pytest.mark.parametrize("how", ["cancel", "limit", "stop"])
def test_process_tree_is_killed_with_its_run(real_engine, how):
    limit = 2.0 * PATIENCE if how == "limit" else None
    submit(real_engine, "r1", command=("python", "-c", TREE), max_seconds=limit)
    wait_until(lambda: "child" in log_of(real_engine, "r1"))
    child = psutil.Process(int(log_of(real_engine, "r1").split()[1]))
    if how == "cancel":
        real_engine.cancel("r1")
    elif how == "stop":
        real_engine.stop()
    wait_until(lambda: real_engine.runs.get("r1").is_terminal)
    expected = {"cancel": "Canceled", "limit": "Failed", "stop": "Failed"}
    assert status(real_engine, "r1") == expected[how]
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE


def test_process_tree_ends_with_a_control_plane_that_is_killed(tmp_path):
    """The supervisor's standard input ends with the process that holds its other end."""
    program = textwrap.dedent(
        f"""
        import os, sys, time
        from pathlib import Path
        from mnist_deploy.local.core.job_process import launch_job
        process = launch_job(["python", "-c", {TREE!r}], Path({str(tmp_path)!r}),
                             dict(os.environ), Path({str(tmp_path / "log")!r}))
        time.sleep(300)
        """
    )
    control_plane = subprocess.Popen([sys.executable, "-c", program])
    log = tmp_path / "log"
    wait_until(lambda: log.exists() and "child" in log.read_text())
    child = psutil.Process(int(log.read_text().split()[1]))
    tree = [child, child.parent()]
    control_plane.kill()
    control_plane.wait()
    wait_until(lambda: not any(is_alive(process) for process in tree if process))


def is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_program_that_does_not_exist_fails_the_run(real_engine):
    submit(real_engine, "r1", command=("no-such-program",))
    wait_until(lambda: status(real_engine, "r1") == "Failed")
    reason = "" if sys.platform == "win32" else "No such file"  # there in the user's language
    assert f"no-such-program: {reason}" in real_engine.runs.get("r1").error["message"]


@pytest.mark.skipif(sys.platform == "win32", reason="an exit status has no signal there")
def test_killed_process_is_reported_with_its_signal(real_engine):
    command = ("python", "-c", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    submit(real_engine, "r1", command=command)
    wait_until(lambda: status(real_engine, "r1") == "Failed")
    assert "signal 9" in real_engine.runs.get("r1").error["message"]


# --- outputs with rules ---


def end_with_output(runs, status: int = 0) -> list[str]:
    """The artifacts of an output that the process of a run has written two files to."""
    [process] = FakeProcess.started
    folder = process.directory.parent / "outputs" / "made"
    (folder / "deep").mkdir()
    (folder / "deep" / "a.csv").write_text("a")
    (folder / "b.tmp").write_text("b")
    process.end(status)
    wait_until(lambda: runs.get("r1").is_terminal or len(FakeProcess.started) == 2)
    return [each.path for each in runs.store.artifacts("datastore/made")]


@pytest.mark.parametrize(
    ("rules", "status", "expected"),
    [
        (OutputRules(), 0, ["datastore/made/b.tmp", "datastore/made/deep/a.csv"]),
        (OutputRules(patterns=("*.csv",)), 0, ["datastore/made/deep/a.csv"]),
        (OutputRules(), 1, ["datastore/made/b.tmp", "datastore/made/deep/a.csv"]),
        (OutputRules(needs_success=True), 1, []),
    ],
    ids=["all", "pattern", "mounted", "uploaded"],
)
def test_output_is_uploaded_by_its_rules(engine, runs, rules, status, expected):
    submit(engine, "r1", outputs={"made": "datastore/made"}, output_rules={"made": rules})
    wait_until(lambda: FakeProcess.started)
    assert end_with_output(runs, status) == expected


def test_file_in_the_destination_fails_a_run_that_must_not_overwrite(engine, runs):
    runs.store.write("datastore/made/b.tmp", [b"before"])
    rules = OutputRules(overwrites=False)
    submit(engine, "r1", outputs={"made": "datastore/made"}, output_rules={"made": rules})
    wait_until(lambda: FakeProcess.started)
    end_with_output(runs)
    assert "b.tmp is in the destination" in runs.get("r1").error["message"]
    assert runs.store.artifact("datastore/made/b.tmp").file.read_bytes() == b"before"


@pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege there")
def test_source_of_an_output_is_a_link_to_its_folder(engine, runs):
    rules = OutputRules("made/here")
    submit(engine, "r1", outputs={"made": "datastore/made"}, output_rules={"made": rules})
    wait_until(lambda: FakeProcess.started)
    [process] = FakeProcess.started
    (process.directory / "made/here/c.txt").write_text("c")
    assert "datastore/made/c.txt" in end_with_output(runs)


@pytest.mark.parametrize(("status", "expected"), [(0, "Completed"), (2, "Failed")])
def test_last_step_is_run_after_the_uploads_and_may_fail(engine, runs, status, expected):
    submit(engine, "r1", outputs={"made": "datastore/made"}, last_step=("python", "register.py"))
    wait_until(lambda: FakeProcess.started)
    assert end_with_output(runs)
    assert not runs.get("r1").is_terminal
    FakeProcess.started[1].end(status, "Traceback (most recent call last):\nno data set\n")
    wait_until(lambda: runs.get("r1").is_terminal)
    assert runs.get("r1").status == expected
    assert expected == "Completed" or "no data set" in runs.get("r1").error["message"]


def test_last_step_is_not_run_after_a_failure(engine, runs):
    submit(engine, "r1", last_step=("python", "register.py"))
    wait_until(lambda: FakeProcess.started)
    FakeProcess.started[0].end(1)
    wait_until(lambda: runs.get("r1").is_terminal)
    assert len(FakeProcess.started) == 1
