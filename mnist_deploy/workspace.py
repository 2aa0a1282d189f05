"""The workspace: your own on Azure where a config.json says so, else the local one."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import ConfigError, WorkspaceError
from .login import choose_authentication
from .sdk_call import Deadline, reason

if TYPE_CHECKING:
    from azureml.core import Workspace

# In the SDK's own order of search.
_FOLDERS = (".azureml", "aml_config", "")
_FIELDS = ("subscription_id", "resource_group", "workspace_name")
_ANSWER_LIMIT = 120.0  # seconds for Azure to answer
_ADVICE = "Download it again from the Azure portal, or use connect_workspace(local=True)."


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
    """Find the config.json that was named, or the nearest one; None if there is none.

    Raises
    ------
    ConfigError
        `config` was named and is not there, or a folder on the way cannot be looked into.
    """
    start = Path("." if config is None else config).expanduser().absolute()
    parents = [] if config is not None else start.parents
    try:
        if start.is_file():
            return start
        for file in _candidates([start, *parents]):
            if file.is_file():
                return file
    except OSError as error:
        raise ConfigError(f"config.json cannot be searched for: {error}. {_ADVICE}") from error
    if config is not None:
        raise ConfigError(
            f"There is no config.json at {config}. Expected the file, or a folder that holds it "
            "or has it under .azureml."
        )
    return None


def _candidates(parents: list[Path]) -> Iterator[Path]:
    for folder in _FOLDERS:
        for parent in parents:
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
    authentication = choose_authentication()
    from azureml.core import Workspace

    try:
        workspace = Deadline(_ANSWER_LIMIT).call(
            Workspace.get,
            name,
            auth=authentication,
            subscription_id=subscription,
            resource_group=group,
        )
    except Exception as error:  # the SDK raises its own, azure-core's, msrest's and requests'
        why = reason(error)
        raise WorkspaceError(
            f"The workspace {name!r} that {file} names cannot be reached: {why} {_advice(why)} "
            "Or use connect_workspace(local=True)."
        ) from error
    print(f"Azure workspace {name!r} (config: {_short(file)}).")
    return workspace


def _advice(why: str) -> str:
    """Name the field that may be wrong, in view of what Azure said."""
    if "not found" in why:
        return "Check workspace_name and resource_group in that file."
    if re.search(r"\bsubscription\b", why):
        return "Check subscription_id in that file, and with whom you are logged in."
    return "Check the network, and your access to the workspace."


def read_config(file: Path) -> tuple[str, str, str]:
    """Read (subscription id, resource group, workspace name) from a config.json.

    Raises
    ------
    ConfigError
        With the file and the field that is wrong.
    """
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


def _short(path: Path) -> str:
    """Write `path` as a person would."""
    for base, prefix in ((Path.cwd(), ""), (Path.home(), "~/")):
        if path.is_relative_to(base):
            return f"{prefix}{path.relative_to(base)}"
    return str(path)
