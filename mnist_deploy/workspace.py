"""Connect to a workspace: on Azure if a config.json names one, else the local workspace.

The module also chooses the login to Azure. `managed.connect_client`, for SDK v2, chooses the
workspace in the same way.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import ConfigError, WorkspaceError
from .sdk import Deadline, find_kernel, reason

if TYPE_CHECKING:
    from azureml.core import Workspace
    from azureml.core.authentication import AbstractAuthentication

# In the order in which the SDK searches.
_FOLDERS = (".azureml", "aml_config", "")
_FIELDS = ("subscription_id", "resource_group", "workspace_name")
_SERVICE_PRINCIPAL = ("AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET")
# Set if the machine has a managed identity; otherwise no request for its token is sent.
_IDENTITY_VARIABLES = ("IDENTITY_ENDPOINT", "MSI_ENDPOINT")
_COMPUTE_INSTANCE = Path("/mnt/azmnt/.nbvm")
_ADVICE = "Download it again from the Azure portal, or use connect_workspace(local=True)."


def connect_workspace(
    config: str | os.PathLike[str] | None = None,
    *,
    local: bool | None = None,
    auth: AbstractAuthentication | None = None,
) -> Workspace:
    """Connect to the workspace that holds the model, and print which one was chosen.

    Wraps the tutorial's ``Workspace.from_config()``.

    Parameters
    ----------
    config : path, optional
        The config.json of a workspace on Azure, or its folder. By default the working directory
        and its parents are searched, as by the SDK. The temporary file of
        ``python -m mnist_deploy.local exec`` is ignored.
    local : bool, optional
        True: the local workspace. False: Azure, or an error. By default Azure if a config.json
        is found, else the local workspace.
    auth : azureml.core.authentication.AbstractAuthentication, optional
        The login to Azure. By default the first that is available: the service principal of
        AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET, a managed identity of this
        machine, Azure CLI, interactive login.

    Returns
    -------
    azureml.core.Workspace
        The SDK's own class in both cases.

    Raises
    ------
    ConfigError
        The config.json is unreadable or not filled in, or missing although one was requested.
    WorkspaceError
        The workspace cannot be reached, no login is available, or the local workspace does not
        start.
    """
    file, why = choose_workspace(config, local, auth)
    return connect_locally("connect", why) if file is None else _connect_azure(file, auth)


def choose_workspace(
    config: str | os.PathLike[str] | None, local: bool | None, login: object
) -> tuple[Path | None, str]:
    """Return the config.json of a workspace on Azure, or None for the local workspace; and why."""
    if local and (config is not None or login is not None):
        raise ValueError(
            "A config and a login are for a workspace on Azure; local=True selects the local "
            "workspace. Pass one or the other."
        )
    from .local.discovery import drop_inherited_cloud

    drop_inherited_cloud()  # before an SDK reads it, for a workspace on Azure too
    # Set by `python -m mnist_deploy.local exec`.
    inside_exec = os.environ.get("AZUREML_CURRENT_CLOUD") == "MnistDeployLocal"
    if local or (local is None and config is None and inside_exec):
        return None, "as requested"
    file = find_config(config)
    if file is None and (local is False or login is not None):
        raise ConfigError(
            "No config.json was found in this folder or above it. Download yours from the Azure "
            "portal (the workspace's overview page), or pass its path as config."
        )
    return file, "no config.json in this folder or above it"


def find_config(config: str | os.PathLike[str] | None = None) -> Path | None:
    """Find the config.json at a path, or the nearest one, or None."""
    start = Path("." if config is None else config).expanduser().absolute()
    parents = [start] if config is not None else [start, *start.parents]
    candidates = [parent / folder / "config.json" for folder in _FOLDERS for parent in parents]
    try:
        files = (file for file in [start, *candidates] if file.is_file())
        found = next((file for file in files if not _is_temporary(file)), None)
    except OSError as error:
        raise ConfigError(f"config.json cannot be searched for: {error}. {_ADVICE}") from error
    if found is None and config is not None:
        raise ConfigError(
            f"There is no config.json at {config}. Expected the file, or a folder that holds the "
            "file or has it under .azureml."
        )
    return found


def _is_temporary(file: Path) -> bool:
    """Whether ``python -m mnist_deploy.local exec`` wrote the file; removes a left-over."""
    from .local.cli.config_file import is_temporary_config

    return is_temporary_config(file)


def read_config(file: Path) -> tuple[str, str, str]:
    """Read (subscription id, resource group, workspace name), or raise a `ConfigError`."""
    try:
        content = json.loads(file.read_bytes())  # UTF-8 or UTF-16, with or without a BOM
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{file} cannot be read: {error}. {_ADVICE}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{file} does not hold a JSON object. {_ADVICE}")
    for field in _FIELDS:
        value = content.get(field)
        if not isinstance(value, str) or not value.strip() or value.strip().startswith("<"):
            raise ConfigError(f"{file}: the field {field!r} is not filled in. {_ADVICE}")
    subscription, group, name = (content[field].strip() for field in _FIELDS)
    return subscription, group, name


def connect_locally(function: str, why: str) -> Any:
    """Call a function of `mnist_deploy.local`, and print where the local workspace is kept."""
    from . import local

    try:
        connected = getattr(local, function)()
    except local.LocalWorkspaceError as error:
        raise WorkspaceError(str(error)) from error
    print(f"Local workspace ({why}); registered models are kept in {_short(local.home_folder())}.")
    print("To view it in the browser: python -m mnist_deploy.local portal")
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
    """Print a line if the block reaches a workspace on Azure; raise `WorkspaceError` otherwise."""
    try:
        yield
    except Exception as error:  # the SDK raises its own, azure-core's, msrest's and requests'
        why = reason(error)
        advice = "Check the network, and your access to the workspace."
        if "not found" in why:
            advice = "Check workspace_name and resource_group in that file."
        elif re.search(r"\bsubscription\b", why):
            advice = "Check subscription_id in that file, and which account is logged in."
        raise WorkspaceError(
            f"The workspace {name!r} that {file} names cannot be reached: {why} {advice} "
            f"Or use {call}(local=True)."
        ) from error
    print(f"Azure workspace {name!r} (config: {_short(file)}).")


def choose_authentication() -> AbstractAuthentication:
    """Return the first login that is available; an interactive one only if it can be completed.

    The SDK supports Azure CLI if the package azure-cli is installed in this Python.
    """
    from azureml.core import authentication

    if principal := _read_service_principal():
        return authentication.ServicePrincipalAuthentication(*principal)
    logins = {"Azure CLI": authentication.AzureCliAuthentication}
    if _has_managed_identity():
        client = os.environ.get("AZURE_CLIENT_ID")
        config = {"client_id": client} if client else None
        identity = partial(authentication.MsiAuthentication, identity_config=config)
        logins = {"Managed identity": identity, **logins}
    login, failures = _find_login(logins)
    if login is not None:
        return login
    if not can_prompt():
        raise WorkspaceError(
            "Interactive login to Azure is not possible: standard input is not a terminal. Set "
            f"{', '.join(_SERVICE_PRINCIPAL)} of a service principal, or run 'pip install "
            f"azure-cli' in this Python and then 'az login'. ({' '.join(failures)})"
        )
    try:
        return authentication.InteractiveLoginAuthentication()
    except Exception as error:
        raise WorkspaceError(f"Logging in to Azure failed: {reason(error)} Try again.") from error


def _read_service_principal() -> tuple[str, str, str] | None:
    """Read tenant, client and secret from the environment; None if they are not set."""
    tenant, client, secret = (os.environ.get(name) for name in _SERVICE_PRINCIPAL)
    if tenant and client and secret:
        return tenant, client, secret
    # AZURE_CLIENT_ID alone may name a managed identity.
    if not (tenant or secret or (client and not _has_managed_identity())):
        return None
    missing = [name for name in _SERVICE_PRINCIPAL if not os.environ.get(name)]
    raise WorkspaceError(
        f"A service principal needs {', '.join(_SERVICE_PRINCIPAL)}; {' and '.join(missing)} is "
        "not set. Set all of them, or none to log in otherwise."
    )


def _has_managed_identity() -> bool:
    return any(map(os.environ.get, _IDENTITY_VARIABLES)) or _COMPUTE_INSTANCE.is_file()


def _find_login(
    logins: dict[str, Callable[[], AbstractAuthentication]],
) -> tuple[AbstractAuthentication | None, list[str]]:
    """Return the first login that gives a token, and the failures of those before it."""
    failures: list[str] = []
    for name, log_in in logins.items():
        try:
            login = log_in()
            Deadline().call(login.get_authentication_header)
            return login, failures
        except Exception as error:  # not installed, not logged in, or expired
            failures.append(f"{name}: {reason(error)}")
    return None, failures


def can_prompt() -> bool:
    """Whether a user can respond to a prompt: in a terminal, or in a notebook with input.

    False in CI, if MNIST_DEPLOY_UNATTENDED is set, and in a notebook that a program executes.
    """
    if os.environ.get("CI") or os.environ.get("MNIST_DEPLOY_UNATTENDED"):
        return False
    if kernel := find_kernel():
        # The front end sends this field with each cell.
        return bool(kernel.get_parent("shell").get("content", {}).get("allow_stdin"))
    return sys.stdin is not None and sys.stdin.isatty()


def _short(path: Path) -> str:
    """Write a path relative to the working directory or the home folder, if it is below."""
    for base, prefix in ((Path.cwd(), ""), (Path.home(), "~")):
        if path.is_relative_to(base):
            return str(Path(prefix, path.relative_to(base)))
    return str(path)
