"""One container: a folder, and the scoring processes that are kept alive there."""

from __future__ import annotations

import contextlib
import json
import math
import shutil
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from ..platforms import ProbeSettings
from .launch import variables
from .log import Log
from .process import ScoringProcess
from .runtime import GRACE, AccessPolicy
from .telemetry import BUCKETS, NO_REQUESTS, sum_counts

WATCH_INTERVAL = 0.25  # seconds
MEMORY_INTERVAL = 0.5  # seconds between two looks at the memory, which cost more
LONGEST_PAUSE = 8.0  # seconds between two attempts to restart
START_LIMIT = 600.0  # seconds that init() may take
CONFIGURE_LIMIT = 5.0  # seconds
MANY_ENDS = 3  # of one process in a minute: more are no accident
MOST_WORKERS = 64
NOT_READY = "its script could not be imported, or init() raised"


@dataclass
class Worker:
    """The place of one process, and when it is started again."""

    process: ScoringProcess | None = None
    pause: float = 0.0  # seconds
    due: float = 0.0  # by the monotonic clock
    ends: deque[float] = field(default_factory=lambda: deque(maxlen=MANY_ENDS))


class Container:
    """Scoring processes and their folder.

    Parameters
    ----------
    folder : Path
        Its ``app`` folder holds the script and its assets, ``app/azureml-models`` the models.
    public : socket
        Handed to every process that runs here in turn: the port is never free for anyone
        else, and requests that arrive while a process is restarted wait in its queue.
    inner : socket, optional
        A listening UNIX socket, in a folder that nobody else can read: no key is asked there.
    cpu_cores : float
        BLAS threads follow it, rounded up. Processes follow the variable WORKER_COUNT.
    memory_gb : float
        The largest process is ended and started again when they outgrow it together.
    environment : mapping of str to str
        Environment variables of the script.
    on_change : callable, optional
        Called without arguments when `state` or `problem` has changed, in another thread.

    Attributes
    ----------
    state : str
        ``Transitioning`` until it has started; then ``Healthy`` if a process serves, or
        ``Unhealthy``. ``Failed`` if it did not start.
    problem : str or None
        Why no process serves. None while it is about to: as it starts, or right after one ended.
    """

    def __init__(
        self,
        folder: Path,
        public: socket.socket | None,
        inner: socket.socket | None = None,
        *,
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
        self._memory = memory_gb * 2**30
        self._environment = {
            **variables(threads=max(1, math.ceil(cpu_cores))),
            "AML_APP_ROOT": str(folder / "app"),
            **environment,
        }
        self._on_change = on_change
        self._access, self._access_number = encode(AccessPolicy(), 0), 0
        self._past = NO_REQUESTS
        self._workers: list[Worker] = []
        self._failure: str | None = None  # of the last attempt to start a process
        self._next_look = 0.0
        self._news = threading.Condition()  # held while processes change or report
        self._stopping = threading.Lock()
        self._started, self._stopped = threading.Event(), threading.Event()
        self._wake, self._waker = socket.socketpair()
        self._supervisor = threading.Thread(target=self._supervise, daemon=True)

    def log(self, line: str) -> None:
        self._log.append(line)

    def log_tail(self, lines: int) -> str:
        """The last `lines` lines of what the processes printed, and of what happened to them."""
        return self._log.tail(lines)

    @property
    def requests(self) -> dict[str, Any]:
        """What was answered so far, told about once a second; not counting the health route.

        Returns
        -------
        dict
            ``requests``, ``failed`` (answered with 400 or above), and ``histogram``: how many
            took up to each of `BUCKETS`, and how many took longer.
        """
        with self._news:
            return sum_counts(self._past, *(process.counts for process in self._processes))

    def configure(self, access: AccessPolicy) -> None:
        """Let in who has the right from now on: that holds when this returns.

        Only a process that is stuck is not waited for longer than `CONFIGURE_LIMIT` seconds.
        """
        with self._news:
            if self._stopped.is_set():  # what it still answers has been let in
                return
            self._access_number = number = self._access_number + 1
            self._access = encode(access, number)
            told = [process for process in self._processes if process.is_ready]
            for process in self._processes:
                process.send(self._access)
            self._news.wait_for(
                lambda: (
                    self._stopped.is_set()
                    or all(p.configured >= number or not p.is_open for p in told)
                ),
                CONFIGURE_LIMIT,
            )

    def start(self) -> str | None:
        """Start the processes and wait until ``init()`` has returned; why not, if one failed."""
        self._supervisor.start()
        self._started.wait()
        return self.problem

    def stop(self, grace: float = GRACE) -> None:
        """End the processes and remove the folder.

        Parameters
        ----------
        grace : float
            Seconds for the requests that have arrived to be answered.
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
                wait([process.fileno() for process in serving if process.is_open], 0.02)
                for process in serving:
                    process.read_reports()
            for worker in self._workers:
                self._end_process(worker)
            self._wake.close()
            self._waker.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def _processes(self) -> list[ScoringProcess]:
        return [worker.process for worker in self._workers if worker.process is not None]

    def _supervise(self) -> None:
        """Start each process, and again whenever it ends, as a container would be."""
        asked = self._environment.get("WORKER_COUNT", "1")
        if asked.isdigit() and 1 <= int(asked) <= MOST_WORKERS:
            self._workers = [Worker() for _ in range(int(asked))]
        else:
            self._failure = f"WORKER_COUNT is {asked!r}, not a number from 1 to {MOST_WORKERS}"
        while not self._stopped.is_set() and not (self._failure and not self._started.is_set()):
            with contextlib.suppress(OSError):  # no file descriptor is left, for a moment
                with self._news:
                    for worker in self._workers:
                        self._look_after(worker)
                    self._news.notify_all()
                self._settle()
                self._log.trim()
                self._look_at_memory()
            wait([self._wake, *(p.fileno() for p in self._processes if p.is_open)], WATCH_INTERVAL)
        if not self._started.is_set():
            for worker in self._workers:
                self._end_process(worker)
            self._become("Failed", self._failure or "it was stopped")

    def _look_after(self, worker: Worker) -> None:
        process = worker.process
        if process is None:
            if time.monotonic() >= worker.due:
                self._launch(worker)
            return
        process.read_reports()
        status = process.status()
        if process.is_ready:
            worker.pause = 0.0
        elif status is None and time.monotonic() - process.began > START_LIMIT:
            process.kill("init() did not return in 10 minutes")
        if status is None:
            return
        self._end_process(worker)
        if not process.is_ready:
            self._retry(worker, process.kill_reason or NOT_READY)
            return
        self.log(f"the scoring process ended with status {status}; restarting it")
        worker.ends.append(time.monotonic())
        if len(worker.ends) == MANY_ENDS and worker.ends[-1] - worker.ends[0] < 60:
            worker.ends.clear()
            worker.pause = LONGEST_PAUSE
            self._retry(worker, f"its process ended {MANY_ENDS} times in a minute")

    def _launch(self, worker: Worker) -> None:
        try:
            worker.process = ScoringProcess(
                self.folder,
                self._log.file,
                self._listeners,
                self._environment,
                self._access,
                may_fork=self._memory >= 2**29,
                buckets=BUCKETS,
                memory=int(self._memory / 4),
                documented_limit=self._documented_limit,
            )
        except OSError as error:
            self._retry(worker, f"its process could not be started: {error}")

    def _retry(self, worker: Worker, problem: str) -> None:
        """Try again, later each time; but not if it has never started."""
        self._failure = problem
        if self._started.is_set():
            worker.pause = min(max(1.0, 2 * worker.pause), LONGEST_PAUSE)
            worker.due = time.monotonic() + worker.pause
            self.log(f"{problem}; trying again in {worker.pause:g} s")

    def _end_process(self, worker: Worker) -> None:
        with self._news:
            if worker.process is not None:
                worker.process.end()
                self._past = sum_counts(self._past, worker.process.counts)
                worker.process = None
            self._news.notify_all()

    def _look_at_memory(self) -> None:
        if time.monotonic() < self._next_look:
            return
        self._next_look = time.monotonic() + MEMORY_INTERVAL
        used = {process: process.memory_used() for process in self._processes}
        if sum(used.values()) > self._memory:
            self.log(
                f"the scoring process used {sum(used.values()) / 2**30:.2f} GB of memory, more "
                f"than the {self._memory / 2**30:g} GB of memory_gb, and is ended"
            )
            max(used, key=used.__getitem__).kill("it needs more than memory_gb")

    def _settle(self) -> None:
        """Say how it is now."""
        ready = [process for process in self._processes if process.is_ready]
        if ready:
            self._failure = None
        if self._started.is_set() or len(ready) == len(self._workers):
            self._become("Healthy" if ready else "Unhealthy", self._failure)

    def _become(self, state: str, problem: str | None) -> None:
        is_news = (state, problem) != (self.state, self.problem)
        self.state, self.problem = state, problem
        try:
            if is_news:
                self._on_change()
        finally:
            self._started.set()


def encode(access: AccessPolicy, number: int) -> bytes:
    return json.dumps({**asdict(access), "number": number}).encode() + b"\n"
