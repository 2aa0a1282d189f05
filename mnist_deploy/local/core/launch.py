"""How a scoring process comes to be: forked from a warm one, or started on its own.

A fork serves after 0.1 s, not after one, and shares what it has not changed. It is for Linux
only, and for variables that change nothing of what the warm process has imported.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# It knows nothing of the machine around it but what it needs to run Python.
INHERITED = ("PATH", "PYTHONPATH", "VIRTUAL_ENV", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH",
             "LANG", "LC_ALL", "TMPDIR", "TZ", "HOME")  # fmt: skip
# What Python reads as it starts, and libraries as they are imported.
READ_EARLY = ("PYTHON", "LD_", "LANG", "LC_", "TMPDIR", "OMP_", "OPENBLAS_", "MKL_", "KMP_",
              "GOTO_", "BLIS_", "NPY_", "NUMPY_", "SCIPY_", "SKLEARN_", "JOBLIB_",
              "OTEL_")  # fmt: skip
CANNOT_FORK = 3  # exit status of a warm process in which something has started a thread
PATIENCE = 60.0  # seconds for the warm process to import all that, on a busy machine

Variables = Mapping[str, str]


def variables(threads: int) -> dict[str, str]:
    """The environment variables of every process, with so many threads for BLAS."""
    inherited = {name: os.environ[name] for name in INHERITED if name in os.environ}
    blas = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    return {**inherited, "PYTHONDONTWRITEBYTECODE": "1", **dict.fromkeys(blas, str(threads))}


def launch(
    folder: Path,
    environment: Variables,
    fds: Mapping[str, int],
    options: Mapping[str, Any],
    *,
    may_fork: bool,
) -> Forked | subprocess.Popen[bytes]:
    """Fork or start a scoring process, in a session of its own.

    Parameters
    ----------
    folder : Path
        Its working directory, at first.
    environment : mapping of str to str
        All of its environment variables.
    fds : mapping of str to int
        Its file descriptors: ``line`` for its standard input, ``log`` for what it prints, and
        those that `mnist_deploy.local.scoring.process` takes.
    options : mapping
        What else that takes.
    may_fork : bool
        The memory that it shares with others counts as its own.

    Raises
    ------
    OSError
        The machine has no process, file descriptor or memory left.
    """
    is_same = read_early(environment) == read_early(variables(threads=1))
    if may_fork and is_same and (server := fork_server()) is not None:
        message = {"folder": str(folder), "environment": environment, "options": options}
        with contextlib.suppress(OSError):
            return server.fork(message, fds)
    passed = {name: fd for name, fd in fds.items() if name not in ("line", "log")}
    return subprocess.Popen(
        [sys.executable, "-u", "-m", "mnist_deploy.local.scoring.process",
         json.dumps({**options, **passed})],
        cwd=folder,
        env=environment,
        stdin=fds["line"],
        stdout=fds["log"],
        stderr=fds["log"],
        pass_fds=tuple(passed.values()),
        start_new_session=True,
    )  # fmt: skip


class Forked:
    """A fork of the warm process: as much of `subprocess.Popen` as is needed.

    Parameters
    ----------
    pid : int
    handle : int
        A pidfd: a signal by it reaches this process and no other.
    status : int
        A pipe on which the warm process tells its exit status.
    """

    def __init__(self, pid: int, handle: int, status: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._handle, self._status = handle, status
        self._waiting = threading.Lock()

    def poll(self) -> int | None:
        return self.wait(0)

    def wait(self, timeout: float | None = None) -> int | None:
        """Its exit status, or None if it runs on for `timeout` seconds."""
        poller = select.poll()
        poller.register(self._status, select.POLLIN)
        if poller.poll(None if timeout is None else timeout * 1000):
            with self._waiting:
                if self.returncode is None:
                    told = os.read(self._status, 16)  # nothing if the warm process was killed
                    self.returncode = int(told or -signal.SIGKILL)
        return self.returncode

    def terminate(self) -> None:
        self._send(signal.SIGTERM)

    def kill(self) -> None:
        self._send(signal.SIGKILL)

    def _send(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._handle, number)

    def __del__(self) -> None:
        os.close(self._handle)
        os.close(self._status)


class ForkServer:
    """The warm process; see ``scoring/fork_server.py``."""

    def __init__(self) -> None:
        self._asking = threading.Lock()
        self._control, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._control.settimeout(PATIENCE)
        with its:
            self._process = subprocess.Popen(
                [
                    sys.executable,
                    "-u",
                    "-m",
                    "mnist_deploy.local.scoring.fork_server",
                    str(its.fileno()),
                ],
                cwd="/",
                env=variables(threads=1),
                stdin=subprocess.DEVNULL,
                pass_fds=[its.fileno()],
                start_new_session=True,
            )
        atexit.register(self.end)

    def fork(self, message: Mapping[str, Any], fds: Mapping[str, int]) -> Forked:
        """Fork a scoring process.

        Raises
        ------
        ConnectionError
            It does not answer, and is ended.
        """
        status, told = os.pipe()
        try:
            with self._asking:
                asked = json.dumps({**message, "fds": list(fds)}).encode()
                socket.send_fds(self._control, [asked], [told, *fds.values()])
                answer, [handle], *_ = socket.recv_fds(self._control, 64, 1)
        except (OSError, ValueError) as error:
            os.close(status)
            self._process.kill()  # else it might answer when somebody else asks
            raise ConnectionError("the warm process does not answer") from error
        finally:
            os.close(told)
        return Forked(int(answer), handle, status)

    def status(self) -> int | None:
        return self._process.poll()

    def end(self) -> None:
        """With its socket it ends, and what was forked from it."""
        self._control.close()
        self._process.wait()


_choosing = threading.Lock()
_fork_server: ForkServer | None = None


def fork_server() -> ForkServer | None:
    """The warm process, started if it does not run; None where there can be none.

    It takes a second before it can fork, in which nobody needs to wait.
    """
    global _fork_server
    with _choosing:
        ended_with = _fork_server.status() if _fork_server else None
        if sys.platform != "linux" or ended_with == CANNOT_FORK:
            return None
        if _fork_server is None or ended_with is not None:
            _fork_server = ForkServer()
        return _fork_server


def read_early(environment: Variables) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name.startswith(READ_EARLY)}
