"""SDK v2 in this process: an ``MLClient`` of the local workspace, and nothing of the user's."""

from __future__ import annotations

import os
import time
from typing import Any

from azure.ai.ml import MLClient
from azure.core.credentials import AccessToken

from .tls import CLOUD, Endpoint

TOKEN_LIFE = 24 * 3600  # seconds


class OwnToken:
    """A credential that asks nobody: it is the endpoint's token."""

    def __init__(self, token: str) -> None:
        self._token = token

    def get_token(self, *scopes: str, **_: Any) -> AccessToken:
        return AccessToken(self._token, int(time.time()) + TOKEN_LIFE)


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
    return MLClient(
        OwnToken(endpoint.token),
        *workspace,
        enable_telemetry=False,
        show_progress=False,
        **name_cloud(endpoint),
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
