"""A container: a folder, and the scoring processes that are supervised and restarted there."""

from __future__ import annotations

import contextlib
import json
import logging
import math
import re
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..host import filesystem, networking
from ..platforms import ProbeSettings
from .container_spec import MAX_WORKERS
from .launch import variables
from .liveness import LivenessProbe
from .log import Log, script_error
from .process import ScoringProcess, describe_exit
from .runtime import GRACE, AccessPolicy
from .telemetry import BUCKETS, NO_REQUESTS, sum_counts

POLL_INTERVAL = 0.25  # seconds between two checks of a process without a pidfd
MEMORY_INTERVAL = 0.5  # seconds between two checks of the memory of a process that is busy
IDLE_INTERVAL = 1.0  # seconds between two checks of a process that has reported nothing
MAX_RESTART_DELAY = 8.0  # seconds
CONFIGURE_TIMEOUT = 5.0  # seconds
MAX_ENDS = 3  # exits of one process within a minute before it is restarted with a backoff
LOG_LINES = 5000  # lines of the log that are searched for the error of a script
INIT_FAILED = 3  # exit status of Microsoft's server after a failed import or init()

logger = logging.getLogger(__name__)


@dataclass
class WorkerSlot:
    """One of the processes that a container must run, across its restarts."""

    process: ScoringProcess | None = None
    probe: LivenessProbe | None = None
    delay: float = 0.0  # seconds before the next restart
    due: float = 0.0  # by the monotonic clock
    ends: deque[float] = field(default_factory=lambda: deque(maxlen=MAX_ENDS))


class ProcessContainer:
    """Scoring processes and their folder.

    Threads: ``container supervisor`` is started by `start` and joined by `stop`.

    Lock order: `_stopping`, which is held while `stop` runs, then `_changed`, which is held while
    processes change or report. `on_change` is called with neither lock held.

    Parameters
    ----------
    folder : Path
        Its ``app`` folder holds the script and its assets, ``app/azureml-models`` the models.
    public : socket, optional
        The listening socket of the endpoint. Every process of the container inherits it: the port
        is never free for another program, and connections that arrive during a restart wait in
        its queue.
    inner : socket, optional
        A listening socket for a router, as from `listen_privately`. Requests on it need no key.
    inner_secret : str
        The secret that each of these requests has to carry; empty where only this user's
        processes can connect.
    cpu_cores : float
        The number of BLAS threads, rounded up. The variable WORKER_COUNT sets the number of
        processes.
    memory_gb : float
        When all processes together use more memory, the largest one is killed and restarted.
    environment : mapping of str to str
        Environment variables of the script.
    on_change : callable, optional
        Called without arguments when `state` or `problem` has changed, in another thread.
    liveness : ProbeSettings, optional
        The time limit of ``init()``, and the liveness probe of each process. A probe succeeds
        while a request runs within its time limit.
    documented_limit : int, optional
        The size of a body in bytes above which a warning is logged.

    Attributes
    ----------
    state : str
        ``Transitioning`` until all processes are ready; then ``Healthy`` if a process serves, or
        ``Unhealthy``. ``Failed`` if a process did not start.
    problem : str or None
        Why no process serves. None while a process starts, or right after a process has ended.
    """

    def __init__(
        self,
        folder: Path,
        public: socket.socket | None,
        inner: socket.socket | None = None,
        *,
        inner_secret: str = "",
        cpu_cores: float,
        memory_gb: float,
        environment: Mapping[str, str],
        on_change: Callable[[], Any] = lambda: None,
        liveness: ProbeSettings | None = None,
        documented_limit: int | None = None,
    ) -> None:
        self.folder = folder
        self.state = "Transitioning"
        self.problem: str | None = None
        self._log = Log(folder / "container.log")
        listeners = {"public": public, "inner": inner}
        self._listeners = {name: each for name, each in listeners.items() if each is not None}
        self._documented_limit = documented_limit
        self._inner_secret = inner_secret
        self._liveness = liveness or ProbeSettings()
        self._memory = memory_gb * 2**30
        self._environment = {
            **variables(threads=max(1, math.ceil(cpu_cores))),
            "AML_APP_ROOT": str(folder / "app"),
            **environment,
        }
        self._on_change = on_change
        self._access, self._access_number = encode(AccessPolicy(), 0), 0
        self._past_counts = NO_REQUESTS
        self._workers: list[WorkerSlot] = []
        self._failure: str | None = None  # of the last attempt to start a process
        self._next_memory_check = 0.0
        self._is_busy = False  # a process has reported since the last memory check
        self._changed = threading.Condition()
        self._stopping = threading.Lock()
        self._started, self._stopped = threading.Event(), threading.Event()
        self._wake, self._waker = socket.socketpair()
        self._supervisor = threading.Thread(
            target=self._supervise, daemon=True, name="container supervisor"
        )

    def log(self, line: str) -> None:
        self._log.append(line)

    def log_tail(self, lines: int) -> str:
        """The last lines of the log: output of the processes, and how processes ended."""
        return self._log.tail(lines)

    @property
    def requests(self) -> dict[str, Any]:
        """The number of answered requests, which the processes report about once a second.

        Returns
        -------
        dict
            ``requests``, ``failed`` (status 400 or above), and ``histogram``: the number of
            requests up to each bound of `BUCKETS`, and above the last bound. Requests to the
            health route are not counted.
        """
        with self._changed:
            return sum_counts(self._past_counts, *(process.counts for process in self._processes))

    @property
    def process_ids(self) -> list[int]:
        return [process.pid for process in self._processes]

    def configure(self, access: AccessPolicy) -> None:
        """Apply an access policy; it is in force when the call returns.

        The call waits at most `CONFIGURE_TIMEOUT` seconds for a process that does not confirm it.
        """
        with self._changed:
            if self._stopped.is_set():  # only requests that were authorized before are left
                return
            self._access_number = number = self._access_number + 1
            self._access = encode(access, number)
            awaited = [process for process in self._processes if process.is_ready]
            for process in self._processes:
                process.send(self._access)
            self._changed.wait_for(
                lambda: (
                    self._stopped.is_set()
                    or all(p.configured >= number or not p.is_open for p in awaited)
                ),
                CONFIGURE_TIMEOUT,
            )

    def start(self) -> str | None:
        """Start the processes and wait until ``init()`` has returned; return the problem, or None.

        A container is started once.
        """
        self._supervisor.start()
        self._started.wait()
        return self.problem

    def stop(self, grace: float = GRACE) -> None:
        """Shut the processes down gracefully, and remove the folder.

        Parameters
        ----------
        grace : float
            Seconds for the processes to answer the requests that have arrived.
        """
        self._stopped.set()
        with self._stopping:
            if self._supervisor.is_alive():
                self._waker.send(b"x")
                self._supervisor.join()
            serving = [process for process in self._processes if process.is_ready]
            for process in serving:
                process.drain()
            give_up_at = time.monotonic() + grace
            while any(p.status() is None for p in serving) and time.monotonic() < give_up_at:
                networking.wait_readable(
                    [fd for process in serving for fd in process.descriptors], 0.02
                )
                for process in serving:
                    process.read_reports()
            self._end_processes()
            self._wake.close()
            self._waker.close()
        filesystem.remove_folder(self.folder)

    @property
    def _processes(self) -> list[ScoringProcess]:
        return [worker.process for worker in self._workers if worker.process is not None]

    # The supervisor's thread

    def _supervise(self) -> None:
        """Supervise the processes until `stop`; an unexpected error fails the container."""
        try:
            self._workers = [WorkerSlot() for _ in range(worker_count(self._environment))]
            while not self._stopped.is_set() and not self._has_failed_to_start:
                with contextlib.suppress(OSError):  # out of file descriptors: retry after the wait
                    self._supervise_workers()
                self._await_event()
            if not self._started.is_set():
                self._end_processes()
                self._set_state("Failed", self._failure or "it was stopped")
        except ValueError as error:
            self._fail(str(error))
        except Exception as error:
            logger.exception("The supervision of a container failed")
            self._fail(f"its supervision failed: {type(error).__name__}: {error}")

    def _fail(self, problem: str) -> None:
        self.log(problem)
        with contextlib.suppress(Exception):
            self._end_processes()
        self._set_state("Failed", problem)

    @property
    def _has_failed_to_start(self) -> bool:
        return self._failure is not None and not self._started.is_set()

    def _supervise_workers(self) -> None:
        with self._changed:
            for worker in self._workers:
                self._supervise_worker(worker)
            self._changed.notify_all()
        self._update_state()
        self._check_memory()

    def _await_event(self) -> None:
        """Wait until a process reports or ends, or a probe, restart or memory check is due."""
        now = time.monotonic()
        due = [self._next_memory_check]
        for worker in self._workers:
            due.append(worker.probe.due if worker.probe else worker.due)
            if worker.process is not None and not worker.process.reports_its_end:
                due.append(now + POLL_INTERVAL)
        events = [fd for process in self._processes for fd in process.descriptors]
        networking.wait_readable([self._wake, *events], max(0.0, min(due) - now))

    def _supervise_worker(self, worker: WorkerSlot) -> None:
        """Launch, probe or restart the process of a worker, as its state requires."""
        process, probe = worker.process, worker.probe
        if process is None or probe is None:
            if time.monotonic() >= worker.due:
                self._launch(worker)
            return
        self._read_reports(process)
        if process.is_ready:
            worker.delay = 0.0
        status = process.status()
        if status is None:
            reason = probe.step(time.monotonic())
            if reason is not None:
                process.kill(reason)
            return
        self._end_process(worker)
        if not process.is_ready:
            self._retry(worker, process.kill_reason or self._start_problem(status))
            return
        reason = process.kill_reason or describe_exit(status)
        self.log(f"the scoring process is restarted: {reason}")
        worker.ends.append(time.monotonic())
        if len(worker.ends) == MAX_ENDS and worker.ends[-1] - worker.ends[0] < 60:
            worker.ends.clear()
            worker.delay = MAX_RESTART_DELAY
            self._retry(worker, f"its process ended {MAX_ENDS} times in a minute")

    def _read_reports(self, process: ScoringProcess) -> None:
        before, was_malformed = process.counts, process.has_malformed_reports
        process.read_reports()
        self._is_busy |= process.counts is not before or not process.is_ready
        if process.has_malformed_reports and not was_malformed:
            self.log("the scoring process reported what is not JSON; such lines are ignored")

    def _launch(self, worker: WorkerSlot) -> None:
        try:
            process = ScoringProcess(
                self.folder,
                self._log.file,
                self._listeners,
                self._environment,
                self._access,
                may_fork=self._memory >= 2**29,
                buckets=BUCKETS,
                memory=int(self._memory / 4),
                documented_limit=self._documented_limit,
                inner_secret=self._inner_secret,
            )
        except (OSError, ValueError) as error:
            self._retry(worker, f"its process could not be started: {error}")
        else:
            worker.process = process
            worker.probe = LivenessProbe(self._liveness, process, time.monotonic())

    def _start_problem(self, status: int) -> str:
        """The reason why a process ended before ``init()`` had returned."""
        if status != INIT_FAILED:
            return f"its process ended before init() had returned: {describe_exit(status)}"
        problem = "its script could not be imported, or init() raised"
        error = script_error(self.log_tail(LOG_LINES))
        return f"{problem}: {error}" if error else problem

    def _retry(self, worker: WorkerSlot, problem: str) -> None:
        """Schedule a restart with exponential backoff, unless the container has not started yet."""
        self._failure = problem
        if self._started.is_set():
            worker.delay = min(max(1.0, 2 * worker.delay), MAX_RESTART_DELAY)
            worker.due = time.monotonic() + worker.delay
            self.log(f"{problem}; trying again in {worker.delay:g} s")

    def _end_process(self, worker: WorkerSlot) -> None:
        with self._changed:
            process, worker.process, worker.probe = worker.process, None, None
            if process is not None:
                process.end()
                self._past_counts = sum_counts(self._past_counts, process.counts)
            self._changed.notify_all()

    def _end_processes(self) -> None:
        for worker in self._workers:
            self._end_process(worker)

    def _check_memory(self) -> None:
        now = time.monotonic()
        if now < self._next_memory_check:
            return
        interval = MEMORY_INTERVAL if self._is_busy else IDLE_INTERVAL
        self._next_memory_check, self._is_busy = now + interval, False
        self._log.trim()
        used = {process: process.memory_used() for process in self._processes}
        if sum(used.values()) > self._memory:
            self.log(
                f"the scoring process used {sum(used.values()) / 2**30:.2f} GB of memory, more "
                f"than the {self._memory / 2**30:g} GB of memory_gb, and is killed"
            )
            max(used, key=used.__getitem__).kill("it needs more than memory_gb")

    def _update_state(self) -> None:
        ready = [process for process in self._processes if process.is_ready]
        if ready:
            self._failure = None
        if self._started.is_set() or len(ready) == len(self._workers):
            self._set_state("Healthy" if ready else "Unhealthy", self._failure)

    def _set_state(self, state: str, problem: str | None) -> None:
        has_changed = (state, problem) != (self.state, self.problem)
        self.state, self.problem = state, problem
        try:
            if has_changed:
                self._on_change()
        except Exception:
            logger.exception("A change of a container's state was not applied")
        finally:
            self._started.set()


def encode(access: AccessPolicy, number: int) -> bytes:
    return json.dumps({**asdict(access), "number": number}).encode() + b"\n"


def worker_count(environment: Mapping[str, str]) -> int:
    """The number of processes that the variable WORKER_COUNT sets.

    Raises
    ------
    ValueError
        If the variable is not a number, or out of range.
    """
    text = environment.get("WORKER_COUNT", "1")
    count = int(text) if re.fullmatch("[0-9]{1,4}", text) else 0
    if not 1 <= count <= MAX_WORKERS:
        shown = text if len(text) <= 40 else f"{text[:40]}…"
        raise ValueError(f"WORKER_COUNT is {shown!r}, expected a number from 1 to {MAX_WORKERS}")
    return count
