"""One deployed service: a folder, and one scoring process that is kept alive."""

from __future__ import annotations

import contextlib
import json
import math
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from pathlib import Path

import psutil

from ..tls import write_private

# A container knows nothing of the machine around it but what it needs to run Python.
INHERITED = ("PATH", "PYTHONPATH", "VIRTUAL_ENV", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH",
             "LANG", "LC_ALL", "TMPDIR", "TZ", "HOME")  # fmt: skip
WATCH_INTERVAL = 0.25  # seconds
LOG_LIMIT = 16 << 20  # bytes
MANY_ENDS = 3  # in a minute: more are no accident
LONGEST_PAUSE = 8.0  # seconds between two attempts to restart
START_LIMIT = 600.0  # seconds that init() may take


class Container:
    """A scoring process and its folder.

    Parameters
    ----------
    folder : Path
        Its ``app`` folder holds the script and its assets, ``app/azureml-models`` the models.
    listener : socket
        Handed to every process that runs here in turn: the port is never free for anyone
        else, and requests that arrive while the process is restarted wait in its queue.
    cpu_cores : float
        Workers and BLAS threads follow it, rounded up.
    memory_gb : float
        A process that outgrows it is ended and started again.
    environment : mapping of str to str
        Environment variables of the script.
    on_change : callable
        Called whenever `state` or `problem` has changed, in any thread.

    Attributes
    ----------
    state : str
        ``Transitioning``, ``Healthy``, ``Unhealthy`` or ``Failed``.
    problem : str or None
        Why it does not come back at once, when it has ended.
    """

    def __init__(
        self,
        folder: Path,
        listener: socket.socket,
        *,
        cpu_cores: float,
        memory_gb: float,
        environment: Mapping[str, str],
        on_change: Callable[[], object] = lambda: None,
    ) -> None:
        self.folder = folder
        self._listener = listener
        self._cores = max(1, math.ceil(cpu_cores))
        self._memory = memory_gb * 2**30
        self._environment = dict(environment)
        self._process: subprocess.Popen[bytes] | None = None
        self._starting = threading.Lock()
        self._stopped = threading.Event()
        self._supervisor = threading.Thread(target=self._supervise, daemon=True)
        self.log_file = folder / "container.log"
        self.state = "Transitioning"
        self.problem: str | None = None
        self._on_change = on_change
        self.set_keys(None)

    def set_keys(self, keys: list[str] | None) -> None:
        """Ask for one of `keys` from now on, or for none."""
        with contextlib.suppress(FileNotFoundError):  # its folder is being removed
            write_private(self.folder / "keys.json", json.dumps(keys).encode())

    def log(self, line: str) -> None:
        stamp = datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M:%S")
        # A full disk, or a folder that is being removed, must not end who watches the process.
        with contextlib.suppress(OSError), open(self.log_file, "a", encoding="utf-8") as file:
            file.write(f"{stamp} container - {line}\n")

    def log_tail(self, lines: int) -> str:
        """The last `lines` lines of what the process printed, and of what happened to it."""
        if lines <= 0:
            return ""
        return "\n".join(self._log_end(LOG_LIMIT).decode("utf-8", "replace").splitlines()[-lines:])

    def start(self) -> str | None:
        """Start the process and wait until ``init()`` has returned; why not, if it failed."""
        with self._starting:
            problem = self._launch()
            self._become("Failed" if problem else "Healthy", problem)
            if problem is None:
                self._supervisor.start()
            else:
                self._end_process()
        return problem

    def stop(self) -> None:
        """End the process and remove the folder."""
        self._stopped.set()
        with self._starting:
            if self._supervisor.is_alive():
                self._supervisor.join()
            self._end_process()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _launch(self) -> str | None:
        ready, told = os.pipe()
        command = [
            sys.executable, "-u", "-m", "mnist_deploy.local.scoring.app",
            str(self._listener.fileno()), str(told), str(self._cores),
            str(self.folder / "keys.json"),
        ]  # fmt: skip
        with open(ready, "rb", buffering=0) as reader:
            try:
                with open(self.log_file, "ab") as log:
                    self._process = subprocess.Popen(
                        command,
                        cwd=self.folder,
                        env=self._variables(),
                        stdin=subprocess.PIPE,
                        stdout=log,
                        stderr=log,
                        pass_fds=(self._listener.fileno(), told),
                        start_new_session=True,
                    )
            except OSError as error:
                return f"its process could not be started: {error}"
            finally:
                os.close(told)
            give_up_at = time.monotonic() + START_LIMIT
            while not self._stopped.is_set() and time.monotonic() < give_up_at:
                if select.select([reader], [], [], WATCH_INTERVAL)[0]:
                    if reader.read(1):
                        return None
                    return "its script could not be imported, or init() raised"
                if self._is_too_large():
                    return "it needs more than memory_gb"
        return "it was stopped" if self._stopped.is_set() else "init() did not return in 10 minutes"

    def _variables(self) -> dict[str, str]:
        threads = str(self._cores)
        return {
            **{name: os.environ[name] for name in INHERITED if name in os.environ},
            "PYTHONDONTWRITEBYTECODE": "1",
            "OMP_NUM_THREADS": threads,
            "OPENBLAS_NUM_THREADS": threads,
            "MKL_NUM_THREADS": threads,
            "AML_APP_ROOT": str(self.folder / "app"),
            **self._environment,
        }

    def _supervise(self) -> None:
        """Restart the process whenever it ends, as a container would be."""
        pause = 0.0
        ends: deque[float] = deque(maxlen=MANY_ENDS)
        while not self._stopped.wait(WATCH_INTERVAL):
            self._trim_log()
            if self._is_running() and not self._is_too_large():
                continue
            self._become("Unhealthy", self.problem)
            status = self._end_process()
            if status is not None:
                self.log(f"the scoring process ended with status {status}; restarting it")
                ends.append(time.monotonic())
                if len(ends) == MANY_ENDS and ends[-1] - ends[0] < 60:
                    self._become("Unhealthy", f"its process ended {MANY_ENDS} times in a minute")
                    ends.clear()
                    self._stopped.wait(LONGEST_PAUSE)
            problem = self._launch()
            if problem is None:
                pause = 0.0
                self._become("Healthy")
            elif not self._stopped.is_set():
                self._become("Unhealthy", problem)
                pause = min(max(1.0, 2 * pause), LONGEST_PAUSE)
                self.log(f"it did not start: {problem}; trying again in {pause:g} s")
                self._end_process()
                self._stopped.wait(pause)

    def _become(self, state: str, problem: str | None = None) -> None:
        if (state, problem) != (self.state, self.problem):
            self.state, self.problem = state, problem
            self._on_change()

    def _is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def _is_too_large(self) -> bool:
        used = self.memory_used()
        if used <= self._memory:
            return False
        self.log(
            f"the scoring process used {used / 2**30:.2f} GB of memory, more than the "
            f"{self._memory / 2**30:g} GB of memory_gb, and is ended"
        )
        return True

    def memory_used(self) -> int:
        """Resident memory of the process and its workers, in bytes."""
        try:
            arbiter = psutil.Process(self._process.pid if self._process else -1)
            family = [arbiter, *arbiter.children(recursive=True)]
        except (psutil.Error, ValueError):
            return 0
        total = 0
        for process in family:
            try:
                total += process.memory_info().rss
            except psutil.Error:
                continue
        return total

    def _end_process(self) -> int | None:
        """End the process and all that it started; its exit status, None if there was none."""
        process, self._process = self._process, None
        if process is None:
            return None
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        assert process.stdin is not None
        process.stdin.close()
        return process.wait()

    def _log_end(self, size: int) -> bytes:
        try:
            with open(self.log_file, "rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - size))
                return file.read()
        except FileNotFoundError:
            return b""

    def _trim_log(self) -> None:
        with contextlib.suppress(OSError):  # the folder is being removed, or the disk is full
            if self.log_file.stat().st_size > LOG_LIMIT:
                kept = self._log_end(LOG_LIMIT // 2)
                with open(self.log_file, "ab") as log:  # as the process writes: at its end
                    log.truncate(0)
                    log.write(kept.partition(b"\n")[2])
