"""Starts scoring processes: forked from the fork server, or with an interpreter of their own.

A fork serves after 0.1 s instead of one, and shares the memory that it does not change. Only
Linux has it, and only for variables that change nothing of what the fork server has imported.
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

from ..host import system

# Prefixes of variables that Python reads as it starts, and libraries as they are imported.
READ_EARLY = ("PYTHON", "LD_", "LANG", "LC_", "TMPDIR", "OMP_", "OPENBLAS_", "MKL_", "KMP_",
              "GOTO_", "BLIS_", "NPY_", "NUMPY_", "SCIPY_", "SKLEARN_", "JOBLIB_",
              "OTEL_")  # fmt: skip
CANNOT_FORK = 3  # exit status of a fork server in which a module has started a thread
START_TIMEOUT = 60.0  # seconds for the fork server's imports, on a busy machine
FORK_TIMEOUT = 5.0  # seconds for a fork after that
STATUS_TIMEOUT = 1.0  # seconds for the fork server to report the status of a fork that has ended
STOP_TIMEOUT = 5.0  # seconds for the fork server to end, and its forks before it
UNKNOWN_STATUS = 256  # where the fork server has ended before its fork

Variables = Mapping[str, str]


def variables(threads: int) -> dict[str, str]:
    """The environment variables of every process, with so many threads for BLAS."""
    inherited = {name: os.environ[name] for name in system.INHERITED if name in os.environ}
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
        Its working directory, at first.
    environment : mapping of str to str
        All of its environment variables.
    sockets : mapping of str to socket
        Those that `mnist_deploy.local.scoring.process` takes.
    log : file
        For what it prints.
    options : mapping
        What else `mnist_deploy.local.scoring.process` takes.
    may_fork : bool
        The memory that it shares with other processes counts as its own.

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
        fork_server()  # starts another one, for the next time
    return system.start_child(
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
            raise ValueError(f"environment variable {name!r}: a name has neither '=' nor NUL")
        if "\0" in value:
            raise ValueError(f"environment variable {name}: a value has no NUL")


class Forked:
    """A fork of the fork server: as much of `subprocess.Popen` as is needed.

    Parameters
    ----------
    pid : int
    handle : int
        A pidfd: readable when the process has ended, whatever became of the fork server; a
        signal by it reaches this process and no other.
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
        """The exit status, or None if the process runs after `timeout` seconds."""
        if self.returncode is None and system.wait_readable([self.handle], timeout):
            with self._waiting:
                if self.returncode is None:
                    self.returncode = self._read_status()
        return self.returncode

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.handle, signal.SIGKILL)

    def _read_status(self) -> int:
        is_reported = system.wait_readable([self._status], STATUS_TIMEOUT)
        if is_reported and (report := os.read(self._status, 16)):
            return int(report)
        return UNKNOWN_STATUS

    def __del__(self) -> None:
        os.close(self.handle)
        os.close(self._status)


class ForkServer:
    """The process of ``scoring/fork_server.py``.

    One that does not answer is killed and replaced; its forks go on without it.
    """

    def __init__(self) -> None:
        self._forking = threading.Lock()
        self._is_ready = False
        self._control, its = socket.socketpair()
        with its:
            self._process = system.start_child(
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
            The fork server does not answer, and is killed.
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
            self._process.kill()  # else its late answer would be taken for that to another request
            self._process.wait()
            raise ConnectionError("the fork server does not answer") from error
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
    """The fork server, which is started if necessary; None if the platform cannot fork.

    It takes a second before it can fork, which this does not wait for.
    """
    global _fork_server
    with _choosing:
        ended_with = _fork_server.status() if _fork_server else None
        if not system.CAN_FORK or ended_with == CANNOT_FORK:
            return None
        if _fork_server is None or ended_with is not None:
            if _fork_server is not None:
                atexit.unregister(_fork_server.stop)
                _fork_server.stop()
            _fork_server = ForkServer()
        return _fork_server


def read_early(environment: Variables) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name.startswith(READ_EARLY)}
