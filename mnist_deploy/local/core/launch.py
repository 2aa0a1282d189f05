"""Starts scoring processes: forks of the fork server, or new interpreters.

A fork serves after 0.1 s instead of 1 s, and shares unmodified memory. Forks require Linux, and
environment variables that do not affect the imported modules of the fork server.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import signal
import socket
import subprocess
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from ..host import networking, processes

# Prefixes of variables that Python reads at its start, and libraries at their import.
READ_EARLY = ("PYTHON", "LD_", "LANG", "LC_", "TMPDIR", "OMP_", "OPENBLAS_", "MKL_", "KMP_",
              "GOTO_", "BLIS_", "NPY_", "NUMPY_", "SCIPY_", "SKLEARN_", "JOBLIB_",
              "OTEL_")  # fmt: skip
CANNOT_FORK = 3  # exit status of a fork server in which a module has started a thread
START_TIMEOUT = 60.0  # seconds for the fork server's imports, on a busy machine
FORK_TIMEOUT = 5.0  # seconds for a fork of a started fork server
STATUS_TIMEOUT = 1.0  # seconds for the fork server to report the status of a fork that has ended
STOP_TIMEOUT = 5.0  # seconds for the forks and then the fork server to end
UNKNOWN_STATUS = 256  # the fork server has ended before its fork

Variables = Mapping[str, str]


def variables(threads: int) -> dict[str, str]:
    """Return the environment variables of every process, with `threads` threads for BLAS."""
    inherited = {name: os.environ[name] for name in processes.INHERITED if name in os.environ}
    blas = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    return {**inherited, "PYTHONDONTWRITEBYTECODE": "1", **dict.fromkeys(blas, str(threads))}


def launch(
    folder: Path,
    environment: Variables,
    sockets: Mapping[str, socket.socket],
    log: IO[bytes],
    options: Mapping[str, Any],
    *,
    may_fork: bool,
) -> Forked | subprocess.Popen[bytes]:
    """Fork or start a scoring process in a new session.

    Parameters
    ----------
    folder : Path
        The initial working directory.
    environment : mapping of str to str
        All environment variables of the process.
    sockets : mapping of str to socket
        The sockets of `mnist_deploy.local.scoring.process`.
    log : file
        The file for standard output and standard error.
    options : mapping
        The other options of `mnist_deploy.local.scoring.process`.
    may_fork : bool
        Whether a fork is allowed; shared memory then counts as memory of the process.

    Raises
    ------
    ValueError
        An environment variable cannot be set.
    OSError
        The machine has no process, file descriptor or memory left.
    """
    check_variables(environment)
    is_same = read_early(environment) == read_early(variables(threads=1))
    if may_fork and is_same and (server := fork_server()) is not None:
        message = {"folder": str(folder), "environment": environment, "options": options}
        with contextlib.suppress(OSError):
            return server.fork(message, sockets, log)
        fork_server()  # starts another one, for the next call
    return processes.start_child(
        "mnist_deploy.local.scoring.process",
        [json.dumps(options)],
        sockets,
        flags=["-u"],
        cwd=folder,
        env=environment,
        stdout=log,
        stderr=log,
    )


def check_variables(environment: Variables) -> None:
    for name, value in environment.items():
        if not name or "=" in name or "\0" in name:
            raise ValueError(f"environment variable {name!r}: a name must not contain '=' or NUL")
        if "\0" in value:
            raise ValueError(f"environment variable {name}: a value must not contain NUL")


class Forked:
    """A fork of the fork server, with the required part of `subprocess.Popen`'s interface.

    Parameters
    ----------
    pid : int
    handle : int
        A pidfd, which is readable when the process has ended, also if the fork server has ended.
        Unlike a process id, a pidfd is never reused for another process.
    status : int
        A pipe on which the fork server reports the exit status.
    """

    def __init__(self, pid: int, handle: int, status: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self.handle, self._status = handle, status
        self._waiting = threading.Lock()

    def poll(self) -> int | None:
        return self.wait(0)

    def wait(self, timeout: float | None = None) -> int | None:
        """Return the exit status, or None if the process runs after `timeout` seconds."""
        if self.returncode is None and networking.wait_readable([self.handle], timeout):
            with self._waiting:
                if self.returncode is None:
                    self.returncode = self._read_status()
        return self.returncode

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.handle, signal.SIGKILL)

    def _read_status(self) -> int:
        is_reported = networking.wait_readable([self._status], STATUS_TIMEOUT)
        if is_reported and (report := os.read(self._status, 16)):
            return int(report)
        return UNKNOWN_STATUS

    def __del__(self) -> None:
        os.close(self.handle)
        os.close(self._status)


class ForkServer:
    """The process of ``scoring/fork_server.py``.

    A fork server that does not respond is killed and replaced; its forks keep running.
    """

    def __init__(self) -> None:
        self._forking = threading.Lock()
        self._is_ready = False
        self._control, its = socket.socketpair()
        with its:
            self._process = processes.start_child(
                "mnist_deploy.local.scoring.fork_server",
                [],
                {"control": its},
                flags=["-u"],
                cwd="/",
                env=variables(threads=1),
            )
        atexit.register(self.stop)

    @property
    def pid(self) -> int:
        return self._process.pid

    def fork(
        self, message: Mapping[str, Any], sockets: Mapping[str, socket.socket], log: IO[bytes]
    ) -> Forked:
        """Fork a scoring process.

        Raises
        ------
        ConnectionError
            The fork server does not respond, and was killed.
        """
        status, reported = os.pipe()
        try:
            with self._forking:
                self._await_ready()
                data = json.dumps({**message, "sockets": list(sockets)}).encode()
                size = len(data).to_bytes(8, "big")
                fds = [reported, log.fileno(), *(each.fileno() for each in sockets.values())]
                socket.send_fds(self._control, [size], fds)
                self._control.sendall(data)
                answer, [handle], *_ = socket.recv_fds(self._control, 8, 1)
        except (OSError, ValueError) as error:
            os.close(status)
            self._process.kill()  # its late response would be read as the next one
            self._process.wait()
            raise ConnectionError("the fork server does not respond") from error
        finally:
            os.close(reported)
        return Forked(int.from_bytes(answer, "big"), handle, status)

    def _await_ready(self) -> None:
        if not self._is_ready:
            self._control.settimeout(START_TIMEOUT)
            if not self._control.recv(1):
                raise ConnectionError("the fork server has ended")
            self._control.settimeout(FORK_TIMEOUT)
            self._is_ready = True

    def status(self) -> int | None:
        return self._process.poll()

    def stop(self) -> None:
        """Stop the fork server, and kill forks that run after a grace period."""
        self._control.close()
        try:
            self._process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


_choosing = threading.Lock()
_fork_server: ForkServer | None = None


def fork_server() -> ForkServer | None:
    """Return the fork server, started if necessary; None if the platform cannot fork.

    The call does not wait until the fork server is ready, which takes a second.
    """
    global _fork_server
    with _choosing:
        ended_with = _fork_server.status() if _fork_server else None
        if not processes.CAN_FORK or ended_with == CANNOT_FORK:
            return None
        if _fork_server is None or ended_with is not None:
            if _fork_server is not None:
                atexit.unregister(_fork_server.stop)
                _fork_server.stop()
            _fork_server = ForkServer()
        return _fork_server


def read_early(environment: Variables) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name.startswith(READ_EARLY)}
