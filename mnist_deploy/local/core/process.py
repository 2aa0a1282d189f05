"""One scoring process, and the control channel to it."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..control_socket import ControlSocket
from ..host import filesystem, processes
from ..process_tree import PROCESS_TAG, kill_process_tree, resident_memory
from .launch import UNKNOWN_STATUS, Forked, launch

CONTROL_WRITE_TIMEOUT = 10.0  # seconds before the process is killed
MAX_REPORT = 1 << 20  # bytes of one reported line


class ScoringProcess:
    """A process that serves the script of a container.

    Parameters
    ----------
    folder : Path
        The folder of the container.
    log_file : Path
        The file to which the output of the process is appended.
    listeners : mapping of str to socket
        The listening sockets ``public`` or ``inner``, or both.
    environment : mapping of str to str
        All environment variables of the process.
    access : bytes
        The access policy, sent as the first line of the control channel.
    may_fork : bool
        As for `launch`.
    **options
        The other options of `mnist_deploy.local.scoring.process`.

    Raises
    ------
    ValueError
        An environment variable cannot be set.
    OSError
        The machine has no process, file descriptor or memory left.

    Attributes
    ----------
    is_ready : bool
        Whether ``init()`` has returned and the process serves requests.
    configured, pong : int
        The numbers of the last applied policy and of the last acknowledged liveness probe.
    counts : dict
        ``requests``, ``failed`` and ``histogram`` of the last report.
    has_malformed_reports : bool
        Whether the control channel had lines that are not reports of this package.
    kill_reason : str or None
        Why the container killed the process.
    """

    def __init__(
        self,
        folder: Path,
        log_file: Path,
        listeners: Mapping[str, socket.socket],
        environment: Mapping[str, str],
        access: bytes,
        *,
        may_fork: bool,
        **options: Any,
    ) -> None:
        self.is_ready = False
        self.configured = self.pong = 0
        self.counts: dict[str, Any] = {}
        self.has_malformed_reports = False
        self.kill_reason: str | None = None
        self.began = time.monotonic()
        self._tag = secrets.token_hex(8)
        own, its = socket.socketpair()
        try:
            with its, filesystem.open_log(log_file) as log:
                self._process = launch(
                    folder,
                    {**environment, PROCESS_TAG: self._tag},
                    {"control": its, **listeners},
                    log,
                    {**options, "tag": self._tag},
                    may_fork=may_fork,
                )
        except BaseException:
            own.close()
            raise
        self._control = ControlSocket(own, MAX_REPORT)
        self._handle = self._open_handle()
        self.send(access)

    def _open_handle(self) -> int | None:
        """Return a descriptor that is readable after the process has ended; None without pidfd."""
        if isinstance(self._process, Forked):
            return os.dup(self._process.handle)
        return processes.open_process(self.pid)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_open(self) -> bool:
        """Whether the process may send further reports."""
        return self._control.is_open

    @property
    def descriptors(self) -> list[int]:
        """Return the file descriptors that a report or the end of the process makes readable."""
        reports = [self._control.fileno()] if self.is_open else []
        return reports if self._handle is None else [*reports, self._handle]

    @property
    def reports_its_end(self) -> bool:
        return self._handle is not None

    def send(self, access: bytes) -> None:
        """Send an access policy to the process; a process that does not read is killed."""
        if not self._control.send(access, CONTROL_WRITE_TIMEOUT):
            self.kill("it does not read its control channel")

    def ping(self, number: int) -> None:
        """Send a liveness probe, unless earlier probes are still unread."""
        self._control.offer(ping=number)

    def read_reports(self) -> None:
        """Read and apply the reports of the process."""
        for line in self._control.read():
            self._apply_report(line)

    def _apply_report(self, line: bytes) -> None:
        """Apply a report; the line is untrusted, since a script can write to the channel."""
        try:
            message = json.loads(line)
            if "ready" in message:
                self.is_ready = True
            elif "configured" in message:
                self.configured = int(message["configured"])
            elif "pong" in message:
                self.pong = int(message["pong"])
            else:
                self.counts = {
                    "requests": int(message["requests"]),
                    "failed": int(message["failed"]),
                    "histogram": [int(count) for count in message["histogram"]],
                }
        except (ValueError, TypeError, KeyError, RecursionError):
            self.has_malformed_reports = True

    def status(self) -> int | None:
        """Return the exit status, negative for a signal; None while the process runs."""
        return self._process.poll()

    def memory_used(self) -> int:
        """Return the resident memory of the process tree in bytes."""
        return resident_memory(self.pid)

    def drain(self) -> None:
        """Start a graceful shutdown: the process completes the received requests and ends."""
        self._control.offer(drain=True)

    def kill(self, reason: str) -> None:
        self.kill_reason = reason
        self._process.kill()

    def end(self) -> None:
        """Kill the process tree."""
        if self._process.poll() is None:
            kill_process_tree(self._tag, self.pid)
        processes.kill_group(self._process)
        self._process.kill()  # a new fork may not lead its process group yet
        self._process.wait()
        kill_process_tree(self._tag, self.pid)
        if self._handle is not None:
            os.close(self._handle)
        self._control.close()


def describe_exit(status: int) -> str:
    """Describe the end of a process, for instance ``it ended with exit status 7``."""
    if status == UNKNOWN_STATUS:
        return "it ended with an unknown exit status"
    if status < 0:
        with contextlib.suppress(ValueError):
            return f"it was ended by the signal {signal.Signals(-status).name}"
        return f"it was ended by the signal {-status}"
    return f"it ended with exit status {status}"
