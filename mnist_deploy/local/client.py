"""SDK v2 in this process: an ``MLClient`` that reaches the local workspace and no other cloud."""

from __future__ import annotations

import os
import time
from typing import Any

from azure.ai.ml import MLClient
from azure.core.credentials import AccessToken

from .control_plane import LocalWorkspaceError, lock_owner
from .discovery import CLOUD, ControlPlaneAddress


class ControlPlaneCredential:
    """A credential that returns the control plane's token, without an identity service.

    The expiry of the token is always the present time. The SDK therefore calls `get_token` before
    each attempt of each request, and gets an error at once when the control plane has ended.
    """

    def __init__(self, endpoint: ControlPlaneAddress, cloud: str) -> None:
        self._endpoint = endpoint
        self._cloud = cloud

    def get_token(self, *scopes: str, **_: Any) -> AccessToken:
        runtime = self._endpoint.folder
        if lock_owner(runtime) != self._endpoint.pid:
            raise LocalWorkspaceError(
                f"The local workspace in {runtime.parent} has ended. Models and environments are "
                "kept: connect again, and deploy the services again. If it was not stopped on "
                f"purpose, {runtime / 'control_plane.log'} may hold the reason."
            )
        # For the storage address, the SDK uses the cloud that this variable names.
        os.environ["AZUREML_CURRENT_CLOUD"] = self._cloud
        return AccessToken(self._endpoint.token, int(time.time()))


def make_client(endpoint: ControlPlaneAddress, *workspace: str) -> MLClient:
    """The client of a workspace of a running control plane.

    Parameters
    ----------
    endpoint : ControlPlaneAddress
    workspace : str
        Subscription, resource group and name.

    Notes
    -----
    SDK v2 sets AZUREML_CURRENT_CLOUD in this process: an MLClient that is made after this one
    without a cloud uses the same cloud.
    """
    cloud = name_cloud(endpoint)
    return MLClient(
        ControlPlaneCredential(endpoint, cloud["cloud"]),
        *workspace,
        enable_telemetry=False,
        show_progress=False,
        **cloud,
    )


def name_cloud(endpoint: ControlPlaneAddress) -> dict[str, Any]:
    """The arguments of MLClient that define the local cloud.

    Inside `exec`, its name is enough. Elsewhere the arguments hold all URLs, under a name with the
    port: SDK v2 does not allow a process to define a name twice.
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
