"""The local workspace: Microsoft's genuine SDKs, v1 and v2, without Azure.

A small control plane on 127.0.0.1, a process of its own, answers both as Azure would.
Its web services are real processes of Microsoft's inference server. What is registered
stays on disk; everything that runs ends with the last process that uses it.
"""

from __future__ import annotations

import copy
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import platformdirs

from .control_plane import LocalWorkspaceError, call, end, join_or_launch, locked

if TYPE_CHECKING:
    from azure.ai.ml import MLClient
    from azureml.core import Workspace
    from azureml.core.authentication import TokenAuthentication

    from .discovery import Endpoint

SUBSCRIPTION = "00000000-0000-0000-0000-000000000000"
RESOURCE_GROUP = "local"
WORKSPACE_NAME = "local"
LONGEST_HOME = 400  # bytes of a path: SQLite opens no file beyond 512


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
    if len(os.fsencode(folder)) > LONGEST_HOME:
        raise LocalWorkspaceError(
            f"The local workspace cannot be kept in {folder}: the path is longer than "
            f"{LONGEST_HOME} bytes. Set MNIST_DEPLOY_HOME to a shorter one."
        )
    try:
        for private in (folder, folder / "run"):
            private.mkdir(mode=0o700, parents=True, exist_ok=True)
        return join_or_launch(folder, port)
    except OSError as error:
        raise LocalWorkspaceError(
            f"The local workspace cannot be kept in {folder}: {error}. Set MNIST_DEPLOY_HOME to "
            "a folder that you may write to."
        ) from error


def connect(home: str | os.PathLike[str] | None = None) -> Workspace:
    """The local workspace as a genuine ``azureml.core.Workspace``; started if it does not run.

    Sets REQUESTS_CA_BUNDLE in this process to a file that holds the loopback certificate
    beside the roots that were trusted before.

    Raises
    ------
    LocalWorkspaceError
        If it cannot be started.
    """
    endpoint = start(home)
    _set_variables(endpoint)

    from azureml.core import Workspace

    return Workspace.get(
        WORKSPACE_NAME,
        auth=_authentication(endpoint),
        subscription_id=SUBSCRIPTION,
        resource_group=RESOURCE_GROUP,
    )


def _set_variables(endpoint: Endpoint) -> None:
    """Have https in this process trust the endpoint, and MLflow send no telemetry at its import.

    Both SDKs import MLflow where azureml-mlflow is installed.
    """
    os.environ.update(endpoint.https_environment())
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")


def _authentication(endpoint: Endpoint) -> TokenAuthentication:
    """The SDK's own, with this endpoint for its cloud.

    By its name a cloud would be looked up in a list that the SDK reads once for each process
    and keeps in the user's ~/.azure: an endpoint that moved, or one beside Azure's own, would
    not be found.
    """
    from azureml.core.authentication import TokenAuthentication

    from .discovery import CLOUD

    known = os.environ.get("AZUREML_CURRENT_CLOUD", "AzureCloud")
    if known.startswith(f"{CLOUD}-"):  # a name that SDK v2 has set, and alone knows
        known = "AzureCloud"
    authentication = TokenAuthentication(lambda audience: endpoint.token, cloud=known)
    cloud = authentication._cloud_type = copy.deepcopy(authentication._cloud_type)
    for service in ("resource_manager", "management", "active_directory", "portal",
                    "active_directory_resource_id"):  # fmt: skip
        setattr(cloud.endpoints, service, endpoint.url)
    return authentication


def connect_client(home: str | os.PathLike[str] | None = None) -> MLClient:
    """The local workspace as a genuine ``azure.ai.ml.MLClient``; started if it does not run.

    Sets REQUESTS_CA_BUNDLE as `connect` does. SDK v2 itself sets AZUREML_CURRENT_CLOUD: an
    MLClient that is made without a cloud after this one leads here as well.

    Raises
    ------
    LocalWorkspaceError
        If it cannot be started.
    """
    endpoint = start(home)
    _set_variables(endpoint)

    from .client import make_client

    return make_client(endpoint, SUBSCRIPTION, RESOURCE_GROUP, WORKSPACE_NAME)


def portal_link(
    home: str | os.PathLike[str] | None = None,
    *,
    files: str | os.PathLike[str] | None = None,
    port: int = 0,
) -> str:
    """Start or join the local workspace, and make a link to its page in the browser.

    Parameters
    ----------
    home : path, optional
        See :func:`home_folder`.
    files : path, optional
        A folder whose ``*.js`` add ways to try a service to the page; programs on this machine
        can read what lies in it.
    port : int
        Where the page is to be, if it is not served yet; 0 lets the system choose.

    Returns
    -------
    str
        It works once, within a minute.

    Raises
    ------
    LocalWorkspaceError
        If the workspace cannot be started, or the page not be served.
    """
    endpoint = start(home)
    asked = {"folder": str(Path(files).absolute()) if files else None, "port": port}
    answer = call(endpoint, "POST", "/portal", asked)
    if not answer.ok:
        raise LocalWorkspaceError(f"The page cannot be served: {answer.json()['error']['message']}")
    return answer.json()["url"]


def stop(home: str | os.PathLike[str] | None = None) -> bool:
    """End the control plane and all its services, whoever uses them; False if it did not run.

    One that does not answer, because it is suspended for instance, is ended all the same.

    Raises
    ------
    LocalWorkspaceError
        If it does not end.
    """
    return end(home_folder(home))


def wipe(home: str | os.PathLike[str] | None = None) -> Path:
    """Stop the local workspace and delete everything that is registered or was downloaded in it.

    Raises
    ------
    LocalWorkspaceError
        If it does not end; then nothing is deleted.
    OSError
        If something cannot be deleted.
    """
    folder = home_folder(home)
    parts = [folder / name for name in ("store", "data", "run")]
    if any(part.is_dir() for part in parts):
        (folder / "run").mkdir(mode=0o700, exist_ok=True)
        with locked(folder / "run" / "starting"):
            end(folder)
            for part in filter(Path.is_dir, parts):
                shutil.rmtree(part)
    return folder
