"""The workspace: your own on Azure where a config.json says so, else the local one."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import ConfigError, WorkspaceError

if TYPE_CHECKING:
    from azureml.core import Workspace
    from azureml.core.authentication import AbstractAuthentication

# In the SDK's own order of search.
_FOLDERS = (".azureml", "aml_config", "")
_FIELDS = ("subscription_id", "resource_group", "workspace_name")


def connect_workspace(
    config: str | os.PathLike[str] | None = None, *, local: bool | None = None
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
    if config is not None and local:
        raise ValueError("config names a workspace on Azure; local=True asks for the local one.")
    if local or (local is None and config is None and _inside_exec()):
        return _connect_local("as asked for")
    file = find_config(config)
    if file is not None:
        return _connect_azure(file)
    if local is False:
        raise ConfigError(
            "No config.json was found in this folder or above it. Download yours from the Azure "
            "portal (the workspace's overview page), or pass its path as config."
        )
    return _connect_local("no config.json in this folder or above it")


def find_config(config: str | os.PathLike[str] | None = None) -> Path | None:
    """The config.json that was named, or the nearest one; None if there is none.

    Raises
    ------
    ConfigError
        `config` was named and is not there.
    """
    start = Path(config or ".").expanduser().absolute()
    if start.is_file():
        return start
    if config is not None:
        named = [start / folder / "config.json" for folder in _FOLDERS]
        found = next(filter(Path.is_file, named), None)
        if found is None:
            raise ConfigError(f"There is no config.json at {config}.")
        return found
    return next(filter(Path.is_file, _candidates(start)), None)


def _candidates(start: Path) -> Iterator[Path]:
    for folder in _FOLDERS:
        for parent in (start, *start.parents):
            yield parent / folder / "config.json"


def _inside_exec() -> bool:
    """Whether ``python -m mnist_deploy.local exec`` started this process."""
    return os.environ.get("AZUREML_CURRENT_CLOUD") == "MnistDeployLocal"


def _connect_local(why: str) -> Workspace:
    if sys.platform == "win32":
        raise WorkspaceError(
            "The local workspace needs Linux or macOS, because gunicorn, which serves the "
            "model, does not run on Windows. Use WSL, or a config.json of your own."
        )
    from . import local

    try:
        workspace = local.connect()
    except local.LocalWorkspaceError as error:
        raise WorkspaceError(str(error)) from error
    print(f"Local workspace ({why}); registered models are kept in {_short(local.home_folder())}.")
    return workspace


def _connect_azure(file: Path) -> Workspace:
    subscription, group, name = read_config(file)
    from azureml.core import Workspace

    try:
        workspace = Workspace.get(
            name,
            auth=choose_authentication(),
            subscription_id=subscription,
            resource_group=group,
        )
    except WorkspaceError:
        raise
    except Exception as error:  # the SDK raises its own, azure-core's, msrest's and requests'
        raise WorkspaceError(
            f"The workspace {name!r} (resource group {group!r}) that {file} names cannot be "
            f"reached: {_first_line(error)} Check workspace_name, resource_group and "
            "subscription_id in that file and your access, or use connect_workspace(local=True)."
        ) from error
    print(f"Azure workspace {name!r} (config: {_short(file)}).")
    return workspace


def read_config(file: Path) -> tuple[str, str, str]:
    """(subscription id, resource group, workspace name) of a config.json.

    Raises
    ------
    ConfigError
        With the file and the field that is wrong.
    """
    advice = "Download it again from the Azure portal, or use connect_workspace(local=True)."
    try:
        content = json.loads(file.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{file} cannot be read: {error}. {advice}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{file} holds no JSON object. {advice}")
    for field in _FIELDS:
        value = content.get(field)
        if not isinstance(value, str) or not value.strip() or value.strip().startswith("<"):
            raise ConfigError(f"{file}: the field {field!r} is not filled in. {advice}")
    subscription, group, name = (content[field].strip() for field in _FIELDS)
    return subscription, group, name


def choose_authentication() -> AbstractAuthentication:
    """How to log in to Azure: service principal, then Azure CLI, then a person.

    Raises
    ------
    WorkspaceError
        None of the first two is there, and nobody to log in interactively: no terminal and no
        notebook, CI, or MNIST_DEPLOY_UNATTENDED is set.
    """
    from azureml.core import authentication

    names = ("AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET")
    values = [os.environ.get(name) for name in names]
    if all(values):
        return authentication.ServicePrincipalAuthentication(*values)
    if any(values):
        missing = ", ".join(name for name, value in zip(names, values, strict=True) if not value)
        raise WorkspaceError(f"A service principal needs {' and '.join(names)}; missing: {missing}")
    azure_cli = authentication.AzureCliAuthentication()
    try:
        azure_cli.get_authentication_header()
    except Exception:  # not installed, not logged in, expired: each is an error of its own
        if _somebody_is_there():
            return authentication.InteractiveLoginAuthentication()
        raise WorkspaceError(
            "Nobody can log in to Azure here: set AZURE_CLIENT_ID, AZURE_CLIENT_SECRET and "
            "AZURE_TENANT_ID of a service principal, or run 'az login' first."
        ) from None
    return azure_cli


def _somebody_is_there() -> bool:
    if os.environ.get("CI") or os.environ.get("MNIST_DEPLOY_UNATTENDED"):
        return False
    return "ipykernel" in sys.modules or sys.stdin.isatty()


def _short(path: Path) -> str:
    """`path` as a person would write it."""
    for base, prefix in ((Path.cwd(), ""), (Path.home(), "~/")):
        if path.is_relative_to(base):
            return f"{prefix}{path.relative_to(base)}"
    return str(path)


def _first_line(error: Exception) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0].rstrip(".") + "."
