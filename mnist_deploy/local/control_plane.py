"""Finds, joins, launches and stops the control plane's process, and deletes its files."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from .host import filesystem, processes, signals

# Each scoring process imports this package before its own module. Modules that are large, or slow
# to import, are therefore imported where they are used.
if TYPE_CHECKING:
    import requests

    from .discovery import ControlPlaneAddress

START_TIMEOUT = 30.0  # seconds to answer at all
LAUNCH_TIMEOUT = 60.0  # seconds to start: a virus scanner may read each module first
CALL_TIMEOUT = 5.0  # seconds for one answer
SIGNAL_TIMEOUT = 5.0  # seconds to end after a signal
POLL_INTERVAL = 0.05  # seconds
PROCESS_MODULE = "mnist_deploy.local.server.process"


class LocalWorkspaceError(RuntimeError):
    """The local workspace could not be started, reached or stopped."""


def join_or_launch(folder: Path, port: int) -> ControlPlaneAddress:
    """Register this process with the running control plane, or start a control plane.

    Raises
    ------
    LocalWorkspaceError
        If the control plane does not start, with the last lines of its log; or if a running one
        does not answer, with its process id.
    """
    from .discovery import ControlPlaneAddress

    runtime = folder / "run"
    if (problem := filesystem.find_access_problem(runtime)) is not None:
        raise LocalWorkspaceError(problem)
    deadline = time.monotonic() + START_TIMEOUT
    with locked(runtime / "starting"):
        while (pid := lock_owner(runtime)) is not None:
            address = ControlPlaneAddress.read(runtime)
            if address is not None and pid in (0, address.pid) and join(address):
                return address
            if time.monotonic() > deadline:
                raise LocalWorkspaceError(report_unresponsive(folder, pid))
            time.sleep(POLL_INTERVAL)
        return launch(folder, port)


def lock_owner(runtime: Path) -> int | None:
    """The process id of the control plane; 0 if the id is not written yet, None if none runs.

    The process holds the lock from its start to its end, also while it is suspended.
    """
    try:
        with open(runtime / "alive") as file:
            try:
                filesystem.lock(file, shared=True, wait=False)
            except BlockingIOError:
                text = file.read().strip()
                return int(text) if text.isascii() and text.isdecimal() else 0
    except FileNotFoundError:
        pass
    return None


def report_unresponsive(folder: Path, pid: int) -> str:
    """Return a message with the process that does not answer, and how to end or resume it."""
    suspended = is_suspended(pid)
    return (
        f"Process {pid}{' (suspended)' if suspended else ''} runs the local workspace in {folder} "
        f"and has not answered for {START_TIMEOUT:g} s. "
        f"{f'Wake it with kill -CONT {pid}, or end' if suspended else 'End'} it with "
        "python -m mnist_deploy.local stop."
    )


def is_suspended(pid: int) -> bool:
    import psutil

    with contextlib.suppress(psutil.Error, ValueError):
        return psutil.Process(pid).status() == psutil.STATUS_STOPPED
    return False


def join(address: ControlPlaneAddress) -> bool:
    """Register this process as a client; False if the control plane is stopping or unreachable.

    Raises
    ------
    LocalWorkspaceError
        If the control plane's certificate is not valid at the time of this machine's clock.
    """
    try:
        return call(address, "POST", "/clients", {"pid": os.getpid()}).ok
    except OSError as error:  # the base class of all errors of requests
        if any(text in str(error) for text in ("not yet valid", "certificate has expired")):
            raise LocalWorkspaceError(
                f"The certificate of the local workspace in {address.folder.parent} is not valid "
                f"at {time.strftime('%Y-%m-%d %H:%M')}: the clock of this machine was changed "
                "after the workspace was started. Correct the clock, or make a new certificate: "
                "python -m mnist_deploy.local stop, then connect again."
            ) from error
        return False


def launch(folder: Path, port: int) -> ControlPlaneAddress:
    """Start a control plane and wait until it serves."""
    from .discovery import ControlPlaneAddress

    runtime = folder / "run"
    log_file = runtime / "control_plane.log"
    arguments = ["-m", PROCESS_MODULE, str(folder), str(port), str(os.getpid())]
    with open(log_file, "wb") as log:
        try:
            process = processes.start_background(
                arguments,
                cwd=runtime,  # modules in the caller's folder would hide others
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        except OSError as error:
            raise LocalWorkspaceError(
                f"The local workspace cannot start its control plane: {sys.executable}: "
                f"{error.strerror}. Check that this Python can be executed."
            ) from error
    threading.Thread(target=process.wait, daemon=True, name="control plane reaper").start()
    deadline = time.monotonic() + LAUNCH_TIMEOUT
    while process.poll() is None and time.monotonic() < deadline:
        address = ControlPlaneAddress.read(runtime)
        if address is not None and address.pid == process.pid:
            return address
        time.sleep(POLL_INTERVAL / 2)
    process.kill()
    tail = "\n".join(log_file.read_text(errors="replace").splitlines()[-15:])
    raise LocalWorkspaceError(
        f"The local workspace in {folder} did not start. The last lines of {log_file}:\n{tail}"
    )


def stop(folder: Path) -> bool:
    """Stop the control plane, by a request and then by signals; False if none runs.

    Raises
    ------
    LocalWorkspaceError
        If the control plane does not end.
    """
    from .discovery import ControlPlaneAddress

    runtime = folder / "run"
    if lock_owner(runtime) is None:
        return False
    address = ControlPlaneAddress.read(runtime)
    if address is not None and request_stop(address) and has_ended(runtime, START_TIMEOUT):
        return True
    for numbers in signals.stop_signals():
        for number in numbers:
            send_signal(lock_owner(runtime), number)
        if has_ended(runtime, SIGNAL_TIMEOUT):
            return True
    raise LocalWorkspaceError(
        f"Process {lock_owner(runtime)}, which runs the local workspace in {folder}, has not ended "
        f"within {SIGNAL_TIMEOUT:g} s after it was killed. Check the state of that process."
    )


def wipe(folder: Path) -> None:
    """Stop the control plane, and delete what the workspace has stored in `folder`.

    Raises
    ------
    LocalWorkspaceError
        If the control plane does not end; then nothing is deleted.
    OSError
        If a file cannot be deleted.
    """
    runtime = folder / "run"
    if not any((folder / name).is_dir() for name in ("store", "data", "run")):
        return
    starting = runtime / "starting"
    with locked(starting, remove=True):
        stop(folder)
        for path in (folder / "store", folder / "data", *runtime.iterdir()):
            if path != starting:
                delete(path)
    with contextlib.suppress(OSError):  # another process uses the workspace again
        runtime.rmdir()


def delete(path: Path) -> None:
    """Delete a file or folder, if it exists; raise an error if it cannot be deleted."""
    if path.is_dir() and not path.is_symlink():
        filesystem.remove_folder(path)
        if path.exists():
            shutil.rmtree(path)
    else:
        filesystem.remove_file(path)
        path.unlink(missing_ok=True)


def request_stop(address: ControlPlaneAddress) -> bool:
    try:
        return call(address, "DELETE", "/clients").ok
    except OSError:
        return False


def has_ended(runtime: Path, seconds: float) -> bool:
    """Whether the control plane ends within `seconds`."""
    deadline = time.monotonic() + seconds
    while lock_owner(runtime) is not None:
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_INTERVAL)
    return True


def send_signal(pid: int | None, number: int) -> None:
    """Send a signal to a control plane, unless another process has its id by now."""
    import psutil

    with contextlib.suppress(psutil.Error):
        if pid and PROCESS_MODULE in (process := psutil.Process(pid)).cmdline():
            process.send_signal(number)


def call(
    address: ControlPlaneAddress, method: str, path: str, body: dict | None = None
) -> requests.Response:
    """Send a request to the control plane.

    Raises
    ------
    OSError
        If the control plane does not answer, or another program answers at its port.
    """
    import requests

    with requests.Session() as session:
        session.trust_env = False  # neither proxies nor other roots: this is the loopback
        return session.request(
            method,
            address.url + path,
            json=body,
            headers={"Authorization": f"Bearer {address.token}"},
            verify=str(address.certificate),
            timeout=CALL_TIMEOUT,
        )


@contextlib.contextmanager
def locked(path: Path, *, remove: bool = False) -> Iterator[None]:
    """Hold the lock on a file; with `remove`, remove the file at the end unless an error is raised.

    Raises
    ------
    LocalWorkspaceError
        If another process holds the lock for too long.
    """
    timeout = 2 * LAUNCH_TIMEOUT  # two processes may wait for the lock in sequence
    deadline = time.monotonic() + timeout
    while (descriptor := try_lock(path)) is None:
        if time.monotonic() > deadline:
            raise LocalWorkspaceError(
                f"Another process has locked {path} for {timeout:g} s. End that process first."
            )
        time.sleep(POLL_INTERVAL)
    try:
        yield
    except BaseException:
        os.close(descriptor)
        raise
    if remove:
        filesystem.remove_locked(path, descriptor)
    else:
        os.close(descriptor)


def try_lock(path: Path) -> int | None:
    """Lock a file and return its descriptor; None if another process has locked or removed it."""
    path.parent.mkdir(mode=0o700, exist_ok=True)  # `wipe` of another process removes the folder
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    with contextlib.suppress(BlockingIOError, FileNotFoundError):
        filesystem.lock(descriptor, wait=False)
        if os.path.samestat(os.fstat(descriptor), os.stat(path)):
            return descriptor
    os.close(descriptor)
    return None
