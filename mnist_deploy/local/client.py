"""SDK v2 in this process: an ``MLClient`` of the local workspace, and nothing of the user's."""

from __future__ import annotations

import os
import time
from typing import Any

from azure.ai.ml import MLClient
from azure.core.credentials import AccessToken

from .control_plane import LocalWorkspaceError, lock_owner
from .discovery import CLOUD, Endpoint


class OwnToken:
    """A credential that asks nobody: it is the endpoint's token, as long as that runs.

    It is always about to expire: so the SDK comes for it before each request, and each attempt
    at one, and is told at once that nobody can answer any more.
    """

    def __init__(self, endpoint: Endpoint, cloud: str) -> None:
        self._endpoint = endpoint
        self._cloud = cloud

    def get_token(self, *scopes: str, **_: Any) -> AccessToken:
        runtime = self._endpoint.folder
        if lock_owner(runtime) != self._endpoint.pid:
            raise LocalWorkspaceError(
                f"The local workspace in {runtime.parent} has ended. What is registered is kept: "
                "connect again, and deploy again what ran. If nobody stopped it, "
                f"{runtime / 'control_plane.log'} may say why it ended."
            )
        # Where blobs lie, the SDK finds out by the cloud that was named last in this process.
        os.environ["AZUREML_CURRENT_CLOUD"] = self._cloud
        return AccessToken(self._endpoint.token, int(time.time()))


def make_client(endpoint: Endpoint, *workspace: str) -> MLClient:
    """The client of a workspace of a running control plane.

    Parameters
    ----------
    endpoint : Endpoint
    workspace : str
        Subscription, resource group and name.

    Notes
    -----
    SDK v2 sets AZUREML_CURRENT_CLOUD in this process: an MLClient that is made after this one
    and names no cloud is of the same.
    """
    cloud = name_cloud(endpoint)
    return MLClient(
        OwnToken(endpoint, cloud["cloud"]),
        *workspace,
        enable_telemetry=False,
        show_progress=False,
        **cloud,
    )


def name_cloud(endpoint: Endpoint) -> dict[str, Any]:
    """How SDK v2 is told where the cloud is: by its name, where the environment knows that.

    Else by all its addresses, under a name with the port: what a name means cannot be changed.
    """
    if os.environ.get("ARM_CLOUD_METADATA_URL") == endpoint.metadata_url:
        return {"cloud": CLOUD}
    host = endpoint.url.removeprefix("https://")
    addresses = ("azure_portal", "resource_manager", "active_directory", "aml_resource_id",
                 "registry_discovery_endpoint")  # fmt: skip
    return {
        "cloud": f"{CLOUD}-{host.rpartition(':')[2]}",
        "cloud_metadata": dict.fromkeys(addresses, endpoint.url) | {"storage_endpoint": f"@{host}"},
    }
