"""The local workspace: Microsoft's genuine SDKs, v1 and v2, without Azure.

The control plane, a process that serves Azure's REST APIs on 127.0.0.1, answers both SDKs. The
container of a web service is a process of Microsoft's inference server. Registered models and
environments stay on disk. The control plane and all services end with the last registered client.
"""

from __future__ import annotations

import contextlib
import copy
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import platformdirs

from . import control_plane, session_hooks
from .control_plane import LocalWorkspaceError, call, join_or_launch

if TYPE_CHECKING:
    from azure.ai.ml import MLClient
    from azureml.core import Workspace
    from azureml.core.authentication import TokenAuthentication

    from .discovery import ControlPlaneAddress

SUBSCRIPTION = "00000000-0000-0000-0000-000000000000"
RESOURCE_GROUP = "local"
WORKSPACE_NAME = "local"
MAX_HOME_PATH = 400  # bytes: SQLite opens no file whose path is longer than 512


def home_folder(home: str | os.PathLike[str] | None = None) -> Path:
    """The folder of the local workspace: `home`, $MNIST_DEPLOY_HOME or the user's data folder.

    Raises
    ------
    LocalWorkspaceError
        If the home directory of the user is needed and unknown.
    """
    chosen = home or os.environ.get("MNIST_DEPLOY_HOME")
    try:
        return Path(chosen or platformdirs.user_data_path("mnist_deploy")).expanduser().absolute()
    except RuntimeError as error:  # of expanduser
        raise LocalWorkspaceError(
            "The home directory of this user is unknown: HOME is not set, and the system knows no "
            "such user. Set MNIST_DEPLOY_HOME to a folder for the local workspace."
        ) from error


def start(home: str | os.PathLike[str] | None = None, *, port: int = 0) -> ControlPlaneAddress:
    """Start the control plane or join the running one, which then runs until this process ends.

    Parameters
    ----------
    home : path, optional
        See :func:`home_folder`.
    port : int
        The port of a control plane that is started; 0 lets the system choose.

    Returns
    -------
    ControlPlaneAddress

    Raises
    ------
    LocalWorkspaceError
        If the control plane does not start within a minute, with the last lines of its log; or
        if its folder cannot be used.
    """
    folder = home_folder(home)
    if len(os.fsencode(folder)) > MAX_HOME_PATH:
        raise LocalWorkspaceError(
            f"The local workspace cannot be kept in {folder}: the path is longer than "
            f"{MAX_HOME_PATH} bytes. Set MNIST_DEPLOY_HOME to a shorter one."
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
    """The local workspace as a genuine ``azureml.core.Workspace``, started if need be.

    Sets REQUESTS_CA_BUNDLE and, for the data engine of data sets, SSL_CERT_FILE in this process
    to a file that holds the loopback certificate beside the roots that were trusted before.
    Sets DOCKER_HOST, unless it names another Docker Engine, so that the local modes of both SDKs
    need no Docker.

    Raises
    ------
    LocalWorkspaceError
        If the workspace cannot be started, or the SDK cannot read $ARM_CLOUD_METADATA_URL.
    """
    endpoint = start(home)
    _set_variables(endpoint)

    session_hooks.install_local_only()

    from azureml.core import Workspace

    return Workspace.get(
        WORKSPACE_NAME,
        auth=_authentication(endpoint),
        subscription_id=SUBSCRIPTION,
        resource_group=RESOURCE_GROUP,
    )


def _set_variables(endpoint: ControlPlaneAddress) -> None:
    """Set the variables by which HTTPS clients trust the control plane, and docker-py finds it.

    A DOCKER_HOST that the user has set is kept. Telemetry of MLflow is disabled, because both SDKs
    import MLflow if azureml-mlflow is installed.
    """
    from .discovery import drop_inherited_cloud, is_local_docker_host

    drop_inherited_cloud()
    os.environ.update(endpoint.https_environment())
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    chosen = os.environ.get("DOCKER_HOST")
    if not chosen or is_local_docker_host(chosen):
        os.environ["DOCKER_HOST"] = endpoint.docker_host


def _authentication(endpoint: ControlPlaneAddress) -> TokenAuthentication:
    """The SDK's own token authentication, with the control plane as its cloud.

    The SDK finds a cloud by name in a list that it reads once for each process and stores in the
    user's ~/.azure. That list would not contain a control plane with a new port.
    """
    from azureml.core.authentication import TokenAuthentication

    from .discovery import CLOUD

    known = os.environ.get("AZUREML_CURRENT_CLOUD", "AzureCloud")
    if known.startswith(f"{CLOUD}-"):  # set by SDK v2, and unknown to SDK v1
        known = "AzureCloud"
    with _explaining_metadata_url():
        authentication = TokenAuthentication(lambda audience: endpoint.token, cloud=known)
    cloud = authentication._cloud_type = copy.deepcopy(authentication._cloud_type)
    for service in ("resource_manager", "management", "active_directory", "portal",
                    "active_directory_resource_id"):  # fmt: skip
        setattr(cloud.endpoints, service, endpoint.url)
    return authentication


@contextlib.contextmanager
def _explaining_metadata_url() -> Iterator[None]:
    """Explain an error of SDK v1, which reads $ARM_CLOUD_METADATA_URL whatever the cloud."""
    try:
        yield
    except (OSError, ValueError) as error:  # no answer, or not the JSON that the SDK expects
        url = os.environ.get("ARM_CLOUD_METADATA_URL")
        if url is None:
            raise
        raise LocalWorkspaceError(
            f"SDK v1 reads ARM_CLOUD_METADATA_URL before it connects, and {url} does not "
            f"answer with a list of clouds ({error}). Unset that variable, or correct it."
        ) from error


def connect_client(home: str | os.PathLike[str] | None = None) -> MLClient:
    """The local workspace as a genuine ``azure.ai.ml.MLClient``, started if need be.

    Sets both variables as `connect` does. SDK v2 itself sets AZUREML_CURRENT_CLOUD: an
    MLClient that is made later in this process, without a cloud, reaches the local workspace too.

    Raises
    ------
    LocalWorkspaceError
        If the workspace cannot be started.
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
    """Start or join the local workspace, and make a link to its page for a browser.

    Parameters
    ----------
    home : path, optional
        See :func:`home_folder`.
    files : path, optional
        A folder whose ``*.js`` add ways to try a service to the page. Every program on this
        machine can read its ``.js``, ``.css`` and ``.gz`` files.
    port : int
        The port of the page, if the page is not served yet; 0 lets the system choose.

    Returns
    -------
    str
        The link. It works once, within a minute.

    Raises
    ------
    LocalWorkspaceError
        If the workspace cannot be started, or the page cannot be served.
    """
    endpoint = start(home)
    requested = {"folder": str(Path(files).absolute()) if files else None, "port": port}
    answer = call(endpoint, "POST", "/portal", requested)
    if not answer.ok:
        raise LocalWorkspaceError(answer.json()["error"]["message"])
    return answer.json()["url"]


def stop(home: str | os.PathLike[str] | None = None) -> bool:
    """Stop the control plane and all services, even if clients are registered; False if none runs.

    A control plane that does not answer, for instance because it is suspended, is killed.

    Raises
    ------
    LocalWorkspaceError
        If the control plane does not end.
    """
    return control_plane.stop(home_folder(home))


def wipe(home: str | os.PathLike[str] | None = None) -> Path:
    """Stop the local workspace and delete all that was registered or downloaded in it.

    Raises
    ------
    LocalWorkspaceError
        If the control plane does not end; then nothing is deleted.
    OSError
        If a file cannot be deleted.
    """
    folder = home_folder(home)
    control_plane.wipe(folder)
    return folder
