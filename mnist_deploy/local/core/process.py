"""One scoring process, and the pipes to it."""

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

import psutil

from ..process_tree import PROCESS_TAG, descendants, kill_process_tree
from .launch import launch

CONTROL_WRITE_TIMEOUT = 10.0  # seconds in which it reads nothing of what it is told


class ScoringProcess:
    """A process that serves the script of a container.

    Parameters
    ----------
    folder : Path
        The container's.
    log_file : Path
        What it prints is appended there.
    listeners : mapping of str to socket
        ``public`` or ``inner``, or both.
    environment : mapping of str to str
        All its environment variables.
    access : bytes
        The first line that it is told.
    may_fork : bool
        As for `launch`.
    **options
        What else `mnist_deploy.local.scoring.process` takes.

    Raises
    ------
    OSError
        The machine has no process, file descriptor or memory left.

    Attributes
    ----------
    is_ready : bool
        ``init()`` has returned, and it serves.
    configured : int
        The number of the last line that it has followed.
    counts : dict
        ``requests``, ``failed`` and ``histogram``, as it told them last.
    is_open : bool
        It may report more.
    kill_reason : str or None
        Why it was killed by us.
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
        self.configured = 0
        self.counts: dict[str, Any] = {}
        self.is_open = True
        self.kill_reason: str | None = None
        self.began = time.monotonic()
        self._mark = secrets.token_hex(8)
        self._unread = b""
        reports, report = os.pipe()
        line, self._line = os.pipe()
        fds = {"line": line, "report": report}
        fds |= {name: each.fileno() for name, each in listeners.items()}
        try:
            with open(log_file, "ab") as log:
                self._process = launch(
                    folder,
                    {**environment, PROCESS_TAG: self._mark},
                    {**fds, "log": log.fileno()},
                    {**options, "mark": self._mark},
                    may_fork=may_fork,
                )
        except BaseException:
            os.close(reports)
            os.close(self._line)
            raise
        finally:
            os.close(line)
            os.close(report)
        self._reports = open(reports, "rb", buffering=0)  # noqa: SIM115 - see end
        for fd in (reports, self._line):
            os.set_blocking(fd, False)
        self.send(access)

    @property
    def pid(self) -> int:
        return self._process.pid

    def fileno(self) -> int:
        """Readable when it has reported something, or has ended."""
        return self._reports.fileno()

    def send(self, access: bytes) -> None:
        """Tell it who is let in; one that does not listen is killed."""
        give_up_at = time.monotonic() + CONTROL_WRITE_TIMEOUT
        while access:
            try:
                access = access[os.write(self._line, access) :]
            except BlockingIOError:
                if time.monotonic() > give_up_at:
                    self.kill("it does not listen to its container")
                    return
                time.sleep(0.01)
            except BrokenPipeError:
                return

    def read_reports(self) -> None:
        """Take in what it has reported."""
        while self.is_open and (data := self._reports.read(65536)) is not None:
            self.is_open = bool(data)
            *lines, self._unread = (self._unread + data).split(b"\n")
            for line in lines:
                self._take_in(json.loads(line))

    def _take_in(self, message: dict[str, Any]) -> None:
        if "ready" in message:
            self.is_ready = True
        elif "configured" in message:
            self.configured = message["configured"]
        else:
            self.counts = message

    def status(self) -> int | None:
        """Its exit status, or minus the signal; None while it runs."""
        return self._process.poll()

    def memory_used(self) -> int:
        """Resident memory of it and all that it started, in bytes."""
        total = 0
        with contextlib.suppress(psutil.Error):
            total += psutil.Process(self.pid).memory_info().rss
        for process in descendants(self.pid):
            with contextlib.suppress(psutil.Error):
                total += process.memory_info().rss
        return total

    def drain(self) -> None:
        """Let it answer what it has read of requests, and end."""
        self._process.terminate()

    def kill(self, why: str) -> None:
        self.kill_reason = why
        self._process.kill()

    def end(self) -> None:
        """End it and all that it started."""
        if self._process.poll() is None:
            kill_process_tree(self._mark, self.pid)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.kill()  # a fork that was made just now leads no group yet
        self._process.wait()
        kill_process_tree(self._mark, self.pid)
        os.close(self._line)
        self._reports.close()
