"""Replaces logins, clouds and subscriptions in notebooks by those of the local workspace.

A notebook that logs in with a service principal, a browser or a device code, or that names
Azure's public cloud, would send requests to Azure. The classes for these logins are replaced by
the one for a managed identity, whose tokens the local workspace issues.
"""

from __future__ import annotations

import os
import sys
from types import ModuleType
from typing import Any

from .import_hooks import Change

# Of azure.identity and azure.identity.aio; DefaultAzureCredential finds the managed identity.
CREDENTIALS = (
    "AuthorizationCodeCredential", "AzureCliCredential", "AzureDeveloperCliCredential",
    "AzurePowerShellCredential", "CertificateCredential", "ClientAssertionCredential",
    "ClientSecretCredential", "DeviceCodeCredential", "EnvironmentCredential",
    "InteractiveBrowserCredential", "OnBehalfOfCredential", "SharedTokenCacheCredential",
    "UsernamePasswordCredential", "VisualStudioCodeCredential", "WorkloadIdentityCredential",
)  # fmt: skip
AUTHENTICATIONS = (  # of azureml.core.authentication
    "AzureCliAuthentication", "InteractiveLoginAuthentication", "ServicePrincipalAuthentication",
)  # fmt: skip
_reported: set[str] = set()


def report(line: str) -> None:
    """Print a line to standard error, once in a process."""
    if line not in _reported:
        _reported.add(line)
        print(f"[mnist_deploy.local] {line}", file=sys.stderr, flush=True)


def _replace_logins(module: ModuleType, names: tuple[str, ...], identity: type) -> None:
    for name in names:
        if hasattr(module, name):
            setattr(module, name, _make_login(name, identity))


def _make_login(name: str, identity: type) -> type:
    """A class with this name that logs in as `identity` does, and ignores its arguments."""

    def initialize(self: Any, *arguments: Any, **options: Any) -> None:
        identity.__init__(self)  # type: ignore[misc]
        if arguments or options:
            report(f"{name} logs in to the local workspace; its arguments are ignored.")

    return type(name, (identity,), {"__init__": initialize})


def _replace_credentials(identity: ModuleType) -> None:
    _replace_logins(identity, CREDENTIALS, identity.ManagedIdentityCredential)


def _replace_authentications(authentication: ModuleType) -> None:
    _replace_logins(authentication, AUTHENTICATIONS, authentication.MsiAuthentication)
    _accept_subscriptions(authentication.AbstractAuthentication)


def _accept_subscriptions(authentication: Any) -> None:
    """Accept any subscription id: SDK v1 searches for it in the list of subscriptions."""
    check = authentication._check_if_subscription_exists

    def accept(self: Any, subscription_id: str, known: Any, tenant_id: Any) -> bool:
        ids = [each.subscription_id.lower() for each in known]
        if subscription_id.lower().strip() in ids:
            return check(self, subscription_id, known, tenant_id)
        report(f"The local workspace is used for the subscription {subscription_id}.")
        return True

    authentication._check_if_subscription_exists = accept


def _replace_clouds(environments: Any) -> None:
    """Use the local cloud for Azure's clouds, as in ``MLClient(…, cloud="AzureCloud")``."""
    find, local = vars(environments)["_get_cloud"], os.environ.get("AZUREML_CURRENT_CLOUD")
    if not local or not os.environ.get("ARM_CLOUD_METADATA_URL", "").startswith("http://127.0.0.1"):
        return

    def find_local(cloud: str) -> Any:
        if cloud in ("AzureCloud", "AzureChinaCloud", "AzureUSGovernment"):
            report(f"The local workspace is used for the cloud {cloud}.")
            return find(local)
        return find(cloud)

    vars(environments)["_get_cloud"] = find_local


CHANGES: dict[str, Change] = {
    "azure.identity": _replace_credentials,
    "azure.identity.aio": _replace_credentials,
    "azureml.core.authentication": _replace_authentications,
    "azure.ai.ml._azure_environments": _replace_clouds,
}
