"""The job engine: queues runs, executes their jobs as processes, and records how they end.

Each run occupies one thread of the engine from its start to its end. The processes are started by
the function `launch`, see `core.job_process`.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

from .faults import Fault, Full
from .job_folder import JobFolder, build_job_folder, select_files, upload_files
from .runs import INTERRUPTED, LOG_FILE, Job, OutputRules, Run, Runs

MAX_PROCESSES = max(2, os.cpu_count() or 1)  # runs at once; as many again for their child runs
WAIT_INTERVAL = 0.2  # seconds between two checks of a process
RETRY_BACKOFF = 1.0  # seconds between two attempts to record how a run has ended
LOG_TAIL = 8192  # bytes at the end of the log that are searched for the reason of a failure


class JobProcess(Protocol):
    """A process tree that executes a job."""

    def wait(self, seconds: float) -> int | None:
        """The exit status, negative for a signal; None if the process runs after `seconds`."""

    def kill(self) -> None:
        """Kill the process tree."""


Launch = Callable[[Sequence[str], Path, Mapping[str, str], Path], JobProcess]


class JobEngine:
    """Executes the jobs of runs, a bounded number at once.

    Threads: the pools ``jobs-0`` (runs) and ``jobs-1`` (child runs) are joined by `stop`.
    Lock: `_lock` guards `_canceled`; no other lock is taken while it is held.

    Parameters
    ----------
    runs : Runs
        The records of runs, whose status the engine updates.
    folder : Path
        The parent of one folder for each job, which is removed when the job has ended.
    launch : callable
        Starts a process: command, working directory, environment variables, log file.
    environment : callable
        Returns the environment variables of a run's process, without those of its job.
    """

    def __init__(
        self,
        runs: Runs,
        folder: Path,
        launch: Launch,
        environment: Callable[[Run], Mapping[str, str]],
        max_processes: int = MAX_PROCESSES,
    ) -> None:
        self.runs = runs
        self._folder = folder
        self._launch = launch
        self._environment = environment
        # Two pools: a run that waits for its child run must not delay the start of the child.
        self._pools = [ThreadPoolExecutor(max_processes, f"jobs-{n}") for n in range(2)]
        self._lock = threading.Lock()
        self._canceled: dict[str, threading.Event] = {}
        self._stopping = threading.Event()

    def submit(self, run: Run) -> None:
        """Queue the job of a run.

        The run is executed as soon as fewer than `max_processes` others are.
        """
        assert run.job is not None
        self.runs.set_status(run.id, "Queued")
        with self._lock:
            self._canceled[run.id] = threading.Event()
        future: Future[None] = self._pools[bool(run.parent)].submit(self._execute, run.id, run.job)
        future.add_done_callback(_log_exception)

    def cancel(self, run_id: str) -> None:
        """Cancel a run: kill its process tree, or remove it from the queue."""
        with self._lock:
            canceled = self._canceled.get(run_id)
        if canceled is None:
            steps = [run for run in self.runs.children(run_id) if run.kind == "step"]
            for step in steps:
                self.cancel(step.id)
            if not steps:
                self.runs.set_status(run_id, "Canceled")
            return
        if self.runs.get(run_id).status == "Queued":
            self.runs.set_status(run_id, "Canceled")
        else:
            self.runs.set_status(run_id, "CancelRequested")
        canceled.set()

    def stop(self) -> None:
        """Kill all processes, and return when all of them have ended."""
        self._stopping.set()
        for pool in self._pools:
            pool.shutdown(wait=True, cancel_futures=True)

    def _execute(self, run_id: str, job: Job) -> None:
        """Execute a job and record how it ended, also after an unexpected error."""
        canceled = self._canceled[run_id]
        try:
            if canceled.is_set() or self._stopping.is_set():
                status, error = "Canceled", None
            else:
                status, error = self._run(run_id, job, canceled)
        except Full as fault:
            status, error = "Failed", {"code": "InsufficientStorage", "message": str(fault)}
        except Fault as fault:
            status, error = "Failed", {"code": "UserError", "message": str(fault)}
        except Exception as unexpected:
            logging.getLogger(__name__).exception("run %s could not be executed", run_id)
            message = f"{type(unexpected).__name__}: {unexpected}"
            status, error = "Failed", {"code": "ServiceError", "message": message}
        if self._stopping.is_set():
            status, error = "Failed", {"code": "WorkspaceEnded", "message": INTERRUPTED}
        self._record_end(run_id, status, error)
        with self._lock:
            del self._canceled[run_id]

    def _record_end(self, run_id: str, status: str, error: Mapping[str, str] | None) -> None:
        """Record the end of a run; while the disk is full, retry with a backoff."""
        while True:
            try:
                reported = self.runs.get(run_id).error
                if status == "Completed" and reported:  # an error that the script reported itself
                    status, error = "Failed", reported
                self.runs.set_status(run_id, status, error)
                return
            except (Full, sqlite3.OperationalError) as problem:
                logging.getLogger(__name__).warning("run %s: %s", run_id, problem)
                if self._stopping.wait(RETRY_BACKOFF):
                    return  # the next start of the workspace marks the run as failed

    def _run(
        self, run_id: str, job: Job, canceled: threading.Event
    ) -> tuple[str, dict[str, str] | None]:
        """Execute a job; return the final status of its run, and the error."""
        run = self.runs.set_status(run_id, "Preparing")
        store = self.runs.store
        folder = build_job_folder(self._folder, store, job)
        try:
            log = store.write(f"{run.artifacts}/{LOG_FILE}", []).file
            variables = {**self._environment(run), **folder.variables}
            process = self._launch(folder.command, folder.working_directory, variables, log)
            self.runs.set_status(run_id, "Running")
            end = self._wait(process, job, canceled)
            _end_last_line(log)
            self.runs.set_status(run_id, "Finalizing")
            self._upload(run, job, folder, is_successful=end is None)
            if end is None and job.last_step:
                process = self._launch(job.last_step, folder.path, variables, log)
                end = self._wait(process, job, canceled)
        finally:
            folder.remove()
        if end == "Canceled":
            return end, None
        return ("Completed", None) if end is None else ("Failed", _error_of(end, log, job))

    def _wait(self, process: JobProcess, job: Job, canceled: threading.Event) -> str | None:
        """Wait for the end of a process; return None if it succeeded, else the reason."""
        deadline = None if job.max_seconds is None else time.monotonic() + job.max_seconds
        while (status := process.wait(WAIT_INTERVAL)) is None:
            is_late = deadline is not None and time.monotonic() > deadline
            if canceled.is_set() or self._stopping.is_set() or is_late:
                process.kill()
                return "Timeout" if is_late and not canceled.is_set() else "Canceled"
        process.kill()  # child processes that are left
        return None if status == 0 else f"{status}"

    def _upload(self, run: Run, job: Job, folder: JobFolder, *, is_successful: bool) -> None:
        store = self.runs.store
        upload_files(store, run.artifacts, folder.files_to_collect())
        for name, path in job.outputs.items():
            rules = job.output_rules.get(name, OutputRules())
            if is_successful or not rules.needs_success:
                upload_files(store, path, select_files(store, path, folder.outputs[name], rules))


def _log_exception(future: Future[None]) -> None:
    if not future.cancelled() and future.exception() is not None:
        logging.getLogger(__name__).error("a job failed", exc_info=future.exception())


def _end_last_line(log: Path) -> None:
    """End the last line of a log: only whole lines are sent while a run is active."""
    with open(log, "rb+") as file:
        if file.seek(0, os.SEEK_END):
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                file.write(b"\n")


def _error_of(end: str, log: Path, job: Job) -> dict[str, str]:
    """The error of a run whose process failed, with its traceback or its last lines."""
    if end == "Timeout":
        message = f"The run was killed after {job.max_seconds:g} s, its max_run_duration_seconds."
        return {"code": "Timeout", "message": message}
    with open(log, "rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - LOG_TAIL))
        lines = file.read().decode("utf-8", "replace").splitlines()
    starts = [n for n, line in enumerate(lines) if line.startswith("Traceback (most recent")]
    reason = "\n".join(lines[starts[-1] :] if starts else lines[-15:])
    status = f"signal {end[1:]}" if end.startswith("-") else f"exit status {end}"
    return {
        "code": "UserError",
        "message": f"The process of the run ended with {status}.\n{reason}".strip(),
    }
