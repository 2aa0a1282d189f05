"""The local workspace: the genuine azureml-core SDK without Azure.

A small control plane on 127.0.0.1, a process of its own, answers the SDK as Azure would.
Its web services are real processes of Microsoft's inference server. What is registered
stays on disk; everything that runs ends with the last process that uses it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import platformdirs
import requests

from .tls import CLOUD, Endpoint

if TYPE_CHECKING:
    from azureml.core import Workspace

SUBSCRIPTION = "00000000-0000-0000-0000-000000000000"
RESOURCE_GROUP = "local"
WORKSPACE_NAME = "local"
START_LIMIT = 30.0  # seconds


class LocalWorkspaceError(RuntimeError):
    """The local workspace could not be started, reached or stopped."""


def home_folder(home: str | os.PathLike[str] | None = None) -> Path:
    """Where a local workspace lies: `home`, $MNIST_DEPLOY_HOME or the user's data folder."""
    chosen = home or os.environ.get("MNIST_DEPLOY_HOME")
    return Path(chosen or platformdirs.user_data_path("mnist_deploy")).expanduser().absolute()


def start(home: str | os.PathLike[str] | None = None, *, port: int = 0) -> Endpoint:
    """Start the control plane or join the one that runs; it stays while this process lives.

    Parameters
    ----------
    home : path, optional
        See :func:`home_folder`.
    port : int
        Where to listen if it is not running yet; 0 lets the system choose.

    Returns
    -------
    Endpoint

    Raises
    ------
    LocalWorkspaceError
        If it does not start within 30 seconds; with the last lines of its log.
    """
    folder = home_folder(home)
    runtime = folder / "run"
    runtime.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _one_at_a_time(runtime / "starting"):
        endpoint = Endpoint.read(runtime)
        if endpoint is not None and _join(endpoint):
            return endpoint
        (runtime / "endpoint.json").unlink(missing_ok=True)
        endpoint = _launch(folder, runtime, port)
        if not _join(endpoint):
            raise LocalWorkspaceError("The local workspace ended while it was being joined.")
        return endpoint


def _launch(folder: Path, runtime: Path, port: int) -> Endpoint:
    log_file = runtime / "control_plane.log"
    with open(log_file, "wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "mnist_deploy.local.control_plane", str(folder), str(port)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
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


def _join(endpoint: Endpoint) -> bool:
    """Take a lease for this process; False if nobody answers there any more."""
    try:
        answer = _call(endpoint, "POST", "/leases", {"pid": os.getpid()})
    except requests.RequestException:
        return False
    return answer.ok


def _call(
    endpoint: Endpoint, method: str, path: str, body: dict | None = None
) -> requests.Response:
    with requests.Session() as session:
        session.trust_env = False  # neither proxies nor other roots: this is the loopback
        return session.request(
            method,
            endpoint.url + path,
            json=body,
            headers={"Authorization": f"Bearer {endpoint.token}"},
            verify=str(endpoint.certificate),
            timeout=10,
        )


def connect(home: str | os.PathLike[str] | None = None) -> Workspace:
    """The local workspace as a genuine ``azureml.core.Workspace``; started if it does not run.

    Sets REQUESTS_CA_BUNDLE and the variables of Azure's cloud registry in this process,
    which is how the SDK learns of the loopback certificate and of this cloud.

    Raises
    ------
    LocalWorkspaceError
        If it cannot be started.
    """
    endpoint = start(home)
    variables = endpoint.environment()
    os.environ["REQUESTS_CA_BUNDLE"] = variables["REQUESTS_CA_BUNDLE"]
    os.environ["ARM_CLOUD_METADATA_URL"] = variables["ARM_CLOUD_METADATA_URL"]

    from azureml.core import Workspace
    from azureml.core.authentication import TokenAuthentication

    return Workspace.get(
        WORKSPACE_NAME,
        auth=TokenAuthentication(lambda audience: endpoint.token, cloud=CLOUD),
        subscription_id=SUBSCRIPTION,
        resource_group=RESOURCE_GROUP,
    )


def stop(home: str | os.PathLike[str] | None = None) -> bool:
    """End the control plane and all its services, whoever uses them; False if it did not run.

    Raises
    ------
    LocalWorkspaceError
        If it does not end within 30 seconds.
    """
    runtime = home_folder(home) / "run"
    endpoint = Endpoint.read(runtime)
    if endpoint is None:
        return False
    with contextlib.suppress(requests.RequestException):
        _call(endpoint, "DELETE", "/leases")
    with open(home_folder(home) / "lock", "w") as lock:
        give_up_at = time.monotonic() + START_LIMIT
        while time.monotonic() < give_up_at:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                time.sleep(0.05)
            else:
                return True
    raise LocalWorkspaceError(f"The control plane (process {endpoint.pid}) does not end.")


def wipe(home: str | os.PathLike[str] | None = None) -> Path:
    """Stop the local workspace and delete everything that is registered in it."""
    stop(home)
    folder = home_folder(home)
    for name in ("store", "run", "lock"):
        path = folder / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    return folder


@contextlib.contextmanager
def _one_at_a_time(path: Path) -> Iterator[None]:
    with open(path, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
