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
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path

import psutil

from .tls import write_private

# A container knows nothing of the machine around it but what it needs to run Python.
INHERITED = ("PATH", "PYTHONPATH", "VIRTUAL_ENV", "LANG", "LC_ALL", "TMPDIR", "TZ", "HOME")
WATCH_INTERVAL = 0.25  # seconds
LOG_LIMIT = 16 << 20  # bytes
LONGEST_PAUSE = 8.0  # seconds between two attempts to restart


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
    """

    def __init__(
        self,
        folder: Path,
        listener: socket.socket,
        *,
        cpu_cores: float,
        memory_gb: float,
        environment: Mapping[str, str],
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
        self.set_keys(None)

    def set_keys(self, keys: list[str] | None) -> None:
        """Ask for one of `keys` from now on, or for none."""
        write_private(self.folder / "keys.json", json.dumps(keys).encode())

    def log(self, line: str) -> None:
        stamp = datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M:%S")
        with open(self.log_file, "a", encoding="utf-8") as file:
            file.write(f"{stamp} container - {line}\n")

    def log_tail(self, lines: int) -> str:
        """The last `lines` lines of what the process printed, and of what happened to it."""
        try:
            with open(self.log_file, "rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - LOG_LIMIT))
                text = file.read().decode("utf-8", "replace")
        except FileNotFoundError:
            return ""
        return "\n".join(text.splitlines()[-lines:]) if lines > 0 else ""

    def start(self) -> bool:
        """Start the process and wait until ``init()`` has returned; False if it failed."""
        with self._starting:
            healthy = self._launch()
            self.state = "Healthy" if healthy else "Failed"
            if healthy:
                self._supervisor.start()
            else:
                self._end_process()
        return healthy

    def stop(self) -> None:
        """End the process and remove the folder."""
        self._stopped.set()
        with self._starting:
            if self._supervisor.is_alive():
                self._supervisor.join()
            self._end_process()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _launch(self) -> bool:
        ready, told = os.pipe()
        command = [
            sys.executable, "-u", "-m", "mnist_deploy.local.scoring_app",
            str(self._listener.fileno()), str(told), str(self._cores),
            str(self.folder / "keys.json"),
        ]  # fmt: skip
        with open(self.log_file, "ab") as log:
            self._process = subprocess.Popen(
                command,
                cwd=self.folder / "app",
                env=self._variables(),
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                pass_fds=(self._listener.fileno(), told),
                start_new_session=True,
            )
        os.close(told)
        with open(ready, "rb", buffering=0) as reader:
            while not self._stopped.is_set():
                if select.select([reader], [], [], WATCH_INTERVAL)[0]:
                    return reader.read(1) != b""
                if self._is_too_large():
                    return False
        return False

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
        while not self._stopped.wait(WATCH_INTERVAL):
            self._trim_log()
            process = self._process
            assert process is not None
            if process.poll() is None and not self._is_too_large():
                continue
            self.state = "Unhealthy"
            self._end_process()
            self.log(f"the scoring process ended with status {process.returncode}; restarting it")
            began = time.monotonic()
            if self._launch():
                self.state, pause = "Healthy", 0.0
            elif not self._stopped.is_set():
                pause = min(max(1.0, 2 * pause), LONGEST_PAUSE)
                self.log(f"it did not start in {time.monotonic() - began:.1f} s; trying again")
                self._end_process()
                self._stopped.wait(pause)

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

    def _end_process(self) -> None:
        process = self._process
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if process.stdin:
            process.stdin.close()

    def _trim_log(self) -> None:
        try:
            if self.log_file.stat().st_size > LOG_LIMIT:
                kept = self.log_tail(5000).encode()
                os.truncate(self.log_file, 0)
                with open(self.log_file, "ab") as log:
                    log.write(kept + b"\n")
        except OSError:
            pass  # the folder is being removed
