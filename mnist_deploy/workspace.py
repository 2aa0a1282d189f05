"""The workspace: your own on Azure where a config.json says so, else the local one; log-in."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import ConfigError, WorkspaceError
from .sdk import Deadline, reason

if TYPE_CHECKING:
    from azureml.core import Workspace
    from azureml.core.authentication import AbstractAuthentication

# In the SDK's own order of search.
_FOLDERS = (".azureml", "aml_config", "")
_FIELDS = ("subscription_id", "resource_group", "workspace_name")
_SERVICE_PRINCIPAL = ("AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET")
# What announces a managed identity: without one of these, no address is asked for it.
_IDENTITY_VARIABLES = ("IDENTITY_ENDPOINT", "MSI_ENDPOINT")
_COMPUTE_INSTANCE = Path("/mnt/azmnt/.nbvm")
_ADVICE = "Download it again from the Azure portal, or use connect_workspace(local=True)."


def connect_workspace(
    config: str | os.PathLike[str] | None = None,
    *,
    local: bool | None = None,
    auth: AbstractAuthentication | None = None,
) -> Workspace:
    """Connect to the workspace that holds the model; says which it is and where it looked.

    Wraps the tutorial's ``Workspace.from_config()``.

    Parameters
    ----------
    config : path, optional
        A config.json, or a folder that holds one: then it is Azure. By default it is searched
        for as the SDK does, in this folder and all above it.
    local : bool, optional
        True: the local workspace, whatever lies here. False: Azure, or an error. By default
        Azure if a config.json is found and the local workspace if none is.
    auth : azureml.core.authentication.AbstractAuthentication, optional
        How to log in: then it is Azure. By default the first that is there: the service
        principal of AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET, a managed identity
        that this machine announces, Azure CLI, a person who can be asked.

    Returns
    -------
    azureml.core.Workspace
        The SDK's own class in both cases.

    Raises
    ------
    ConfigError
        The config.json is missing where one was asked for, unreadable or half-filled.
    WorkspaceError
        The workspace cannot be reached, nobody is there to log in, or the local workspace does
        not start.
    """
    file, why = choose_workspace(config, local, auth)
    return connect_locally("connect", why) if file is None else _connect_azure(file, auth)


def choose_workspace(
    config: str | os.PathLike[str] | None, local: bool | None, login: object
) -> tuple[Path | None, str]:
    """The config.json of the workspace on Azure; or None, and why it is the local one."""
    if local and (config is not None or login is not None):
        raise ValueError(
            "A config and a log-in are for Azure; local=True asks for the local workspace."
        )
    # What `python -m mnist_deploy.local exec` sets.
    inside_exec = os.environ.get("AZUREML_CURRENT_CLOUD") == "MnistDeployLocal"
    if local or (local is None and config is None and inside_exec):
        return None, "as asked for"
    file = find_config(config)
    if file is None and (local is False or login is not None):
        raise ConfigError(
            "No config.json was found in this folder or above it. Download yours from the Azure "
            "portal (the workspace's overview page), or pass its path as config."
        )
    return file, "no config.json in this folder or above it"


def find_config(config: str | os.PathLike[str] | None = None) -> Path | None:
    """Find the config.json that was named, or else the nearest one, if there is one."""
    start = Path("." if config is None else config).expanduser().absolute()
    parents = [start] if config is not None else [start, *start.parents]
    places = [parent / folder / "config.json" for folder in _FOLDERS for parent in parents]
    try:
        found = next((file for file in [start, *places] if file.is_file()), None)
    except OSError as error:
        raise ConfigError(f"config.json cannot be searched for: {error}. {_ADVICE}") from error
    if found is None and config is not None:
        raise ConfigError(
            f"There is no config.json at {config}. Expected the file, or a folder that holds it "
            "or has it under .azureml."
        )
    return found


def read_config(file: Path) -> tuple[str, str, str]:
    """Read (subscription id, resource group, workspace name); `ConfigError` names a wrong field."""
    try:
        content = json.loads(file.read_bytes())  # UTF-8 or UTF-16, with or without a mark
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{file} cannot be read: {error}. {_ADVICE}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{file} holds no JSON object. {_ADVICE}")
    for field in _FIELDS:
        value = content.get(field)
        if not isinstance(value, str) or not value.strip() or value.strip().startswith("<"):
            raise ConfigError(f"{file}: the field {field!r} is not filled in. {_ADVICE}")
    subscription, group, name = (content[field].strip() for field in _FIELDS)
    return subscription, group, name


def connect_locally(how: str, why: str) -> Any:
    """What the local workspace's function of that name gives; says where the workspace lies."""
    if sys.platform == "win32":
        raise WorkspaceError(
            "The local workspace needs Linux or macOS: its processes hand listening sockets to "
            "each other and are ended by signals, as Windows cannot. Use WSL, or a config.json of "
            "your own."
        )
    from . import local

    try:
        connected = getattr(local, how)()
    except local.LocalWorkspaceError as error:
        raise WorkspaceError(str(error)) from error
    print(f"Local workspace ({why}); registered models are kept in {_short(local.home_folder())}.")
    print("To look at it in the browser: python -m mnist_deploy.local portal")
    return connected


def _connect_azure(file: Path, auth: AbstractAuthentication | None) -> Workspace:
    from azureml.core import Workspace

    subscription, group, name = read_config(file)
    auth = auth or choose_authentication()
    with reaching(name, file, "connect_workspace"):
        return Deadline().call(
            Workspace.get, name, auth=auth, subscription_id=subscription, resource_group=group
        )


@contextmanager
def reaching(name: str, file: Path, call: str) -> Iterator[None]:
    """Say that a workspace on Azure was reached; or why not, and what to look at."""
    try:
        yield
    except Exception as error:  # the SDK raises its own, azure-core's, msrest's and requests'
        why = reason(error)
        advice = "Check the network, and your access to the workspace."
        if "not found" in why:
            advice = "Check workspace_name and resource_group in that file."
        elif re.search(r"\bsubscription\b", why):
            advice = "Check subscription_id in that file, and with whom you are logged in."
        raise WorkspaceError(
            f"The workspace {name!r} that {file} names cannot be reached: {why} {advice} "
            f"Or use {call}(local=True)."
        ) from error
    print(f"Azure workspace {name!r} (config: {_short(file)}).")


def choose_authentication() -> AbstractAuthentication:
    """Choose how to log in, without ever waiting for somebody who is not there.

    The SDK knows Azure CLI where the package azure-cli is installed in this Python.
    """
    from azureml.core import authentication

    has_identity = any(map(os.environ.get, _IDENTITY_VARIABLES)) or _COMPUTE_INSTANCE.is_file()
    tenant, client, secret = (os.environ.get(name) for name in _SERVICE_PRINCIPAL)
    if tenant and client and secret:
        return authentication.ServicePrincipalAuthentication(tenant, client, secret)
    if tenant or secret or (client and not has_identity):  # AZURE_CLIENT_ID may name an identity
        missing = [name for name in _SERVICE_PRINCIPAL if not os.environ.get(name)]
        raise WorkspaceError(
            f"A service principal needs {', '.join(_SERVICE_PRINCIPAL)}; {' and '.join(missing)} "
            "is not set. Set all of them, or none to log in otherwise."
        )

    ways = {"Azure CLI": authentication.AzureCliAuthentication}
    if has_identity:
        named = {"client_id": client} if client else None
        identity = partial(authentication.MsiAuthentication, identity_config=named)
        ways = {"Managed identity": identity, **ways}
    why_not = []
    for way, log_in in ways.items():
        try:
            chosen = log_in()
            Deadline().call(chosen.get_authentication_header)
            return chosen
        except Exception as error:  # not installed, not logged in, expired: each has its own error
            why_not.append(f"{way}: {reason(error)}")
    if not somebody_is_there():
        raise WorkspaceError(
            f"Nobody is here to log in to Azure. Set {', '.join(_SERVICE_PRINCIPAL)} of a service "
            "principal, or run 'pip install azure-cli' in this Python and then 'az login'. "
            f"({' '.join(why_not)})"
        )
    try:
        return authentication.InteractiveLoginAuthentication()
    except Exception as error:
        raise WorkspaceError(f"Logging in to Azure failed: {reason(error)} Try again.") from error


def somebody_is_there() -> bool:
    """Whether a person can be asked: in a terminal, or a notebook that takes input.

    Not in CI, nor where MNIST_DEPLOY_UNATTENDED is set, nor in a notebook that a program runs.
    """
    if os.environ.get("CI") or os.environ.get("MNIST_DEPLOY_UNATTENDED"):
        return False
    if "ipykernel" in sys.modules:
        from IPython import get_ipython

        if kernel := getattr(get_ipython(), "kernel", None):
            # What the frontend said about itself with the cell that is running.
            return bool(kernel.get_parent("shell").get("content", {}).get("allow_stdin"))
    return sys.stdin is not None and sys.stdin.isatty()


def _short(path: Path) -> str:
    """Write `path` as a person would."""
    for base, prefix in ((Path.cwd(), ""), (Path.home(), "~/")):
        if path.is_relative_to(base):
            return f"{prefix}{path.relative_to(base)}"
    return str(path)
