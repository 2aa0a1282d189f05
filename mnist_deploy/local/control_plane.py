"""The control plane's process as others see it: found, joined, launched and ended."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

# Every scoring process imports this on its way to its own module: what makes it large or slow
# to start is imported where it is used.
if TYPE_CHECKING:
    import requests

    from .discovery import Endpoint

START_LIMIT = 30.0  # seconds to start, or to answer at all
ANSWER_LIMIT = 5.0  # seconds for one answer
GRACE = 5.0  # seconds to end when it is told to


class LocalWorkspaceError(RuntimeError):
    """The local workspace could not be started, reached or stopped."""


def join_or_launch(folder: Path, port: int) -> Endpoint:
    """Register this process with the running control plane, or start a control plane.

    Raises
    ------
    LocalWorkspaceError
        If it does not start, with the last lines of its log; or if one runs that does not
        answer, with its number.
    """
    from .discovery import Endpoint

    runtime = folder / "run"
    give_up_at = time.monotonic() + START_LIMIT
    with locked(runtime / "starting"):
        while (pid := lock_owner(runtime)) is not None:
            endpoint = Endpoint.read(runtime)
            if endpoint is not None and pid in (0, endpoint.pid) and join(endpoint):
                return endpoint
            if time.monotonic() > give_up_at:
                raise LocalWorkspaceError(
                    f"Process {pid}{describe(pid)} holds the local workspace in {folder} and has "
                    f"not answered for {START_LIMIT:g} s. mnist_deploy.local.stop() ends it"
                    f"{f', kill -CONT {pid} wakes it' if describe(pid) else ''}."
                )
            time.sleep(0.05)
        return launch(folder, port)


def lock_owner(runtime: Path) -> int | None:
    """The number of the process that holds the workspace, 0 if it has not said; None if none does.

    It holds a lock as long as it lives, also while it starts, ends or is suspended.
    """
    import fcntl  # not on Windows, where the other modules of this package can be imported

    try:
        with open(runtime / "alive") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return int(file.read() or 0)
    except FileNotFoundError:
        pass
    return None


def describe(pid: int) -> str:
    """`` (suspended)`` if it is, else nothing."""
    import psutil

    with contextlib.suppress(psutil.Error, ValueError):
        if psutil.Process(pid).status() == psutil.STATUS_STOPPED:
            return " (suspended)"
    return ""


def join(endpoint: Endpoint) -> bool:
    """Register this process as a client; False if the control plane is stopping or unreachable."""
    try:
        return call(endpoint, "POST", "/clients", {"pid": os.getpid()}).ok
    except OSError:  # as all errors of requests are
        return False


def launch(folder: Path, port: int) -> Endpoint:
    from .discovery import Endpoint

    runtime = folder / "run"
    log_file = runtime / "control_plane.log"
    command = [sys.executable, "-m", "mnist_deploy.local.server.process"]
    with open(log_file, "wb") as log:
        process = subprocess.Popen(
            [*command, str(folder), str(port), str(os.getpid())],
            cwd=runtime,  # not the caller's folder, whose modules would hide others
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,  # out of reach of the terminal's Ctrl-C
        )
    # Whenever it ends, no zombie of it stays.
    threading.Thread(target=process.wait, daemon=True, name="reaper").start()
    give_up_at = time.monotonic() + START_LIMIT
    while process.poll() is None and time.monotonic() < give_up_at:
        endpoint = Endpoint.read(runtime)
        if endpoint is not None and endpoint.pid == process.pid:
            return endpoint
        time.sleep(0.02)
    process.kill()
    tail = "\n".join(log_file.read_text(errors="replace").splitlines()[-15:])
    raise LocalWorkspaceError(
        f"The local workspace in {folder} did not start. The last lines of {log_file}:\n{tail}"
    )


def end(folder: Path) -> bool:
    """End the control plane, asked first and then by signals; False if none runs.

    Raises
    ------
    LocalWorkspaceError
        If it does not end even so.
    """
    from .discovery import Endpoint

    runtime = folder / "run"
    if lock_owner(runtime) is None:
        return False
    endpoint = Endpoint.read(runtime)
    if endpoint is not None and ask_to_end(endpoint) and is_over(runtime, START_LIMIT):
        return True
    for signals in ((signal.SIGCONT, signal.SIGTERM), (signal.SIGKILL,)):
        for number in signals:
            send(lock_owner(runtime), number)
        if is_over(runtime, GRACE):
            return True
    raise LocalWorkspaceError(
        f"Process {lock_owner(runtime)} holds the local workspace in {folder} and does not end."
    )


def ask_to_end(endpoint: Endpoint) -> bool:
    try:
        return call(endpoint, "DELETE", "/clients").ok
    except OSError:
        return False


def is_over(runtime: Path, seconds: float) -> bool:
    """Whether it ends within `seconds`."""
    give_up_at = time.monotonic() + seconds
    while lock_owner(runtime) is not None:
        if time.monotonic() > give_up_at:
            return False
        time.sleep(0.05)
    return True


def send(pid: int | None, number: int) -> None:
    """Send a signal to a control plane, and to nothing else that may have got its number."""
    import psutil

    with contextlib.suppress(psutil.Error, ProcessLookupError):
        if pid and "mnist_deploy.local.server.process" in psutil.Process(pid).cmdline():
            os.kill(pid, number)


def call(endpoint: Endpoint, method: str, path: str, body: dict | None = None) -> requests.Response:
    """Send a request to the control plane.

    Raises
    ------
    OSError
        As all errors of requests are: if it does not answer, or somebody else does.
    """
    import requests

    with requests.Session() as session:
        session.trust_env = False  # neither proxies nor other roots: this is the loopback
        return session.request(
            method,
            endpoint.url + path,
            json=body,
            headers={"Authorization": f"Bearer {endpoint.token}"},
            verify=str(endpoint.certificate),
            timeout=ANSWER_LIMIT,
        )


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock that a file stands for.

    Raises
    ------
    LocalWorkspaceError
        If another process keeps it for too long.
    """
    import fcntl

    limit = 2 * START_LIMIT  # who waits behind one that waits gets its turn
    with open(path, "w") as file:
        give_up_at = time.monotonic() + limit
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > give_up_at:
                    raise LocalWorkspaceError(
                        f"Another process has held {path} for {limit:g} s; end it first."
                    ) from None
                time.sleep(0.05)
        yield
