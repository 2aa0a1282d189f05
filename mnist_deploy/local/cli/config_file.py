"""The config.json by which a bare ``Workspace.from_config()`` finds its workspace."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

from .. import RESOURCE_GROUP, SUBSCRIPTION, WORKSPACE_NAME
from ..host import filesystem

# In the SDK's own order of search, each in a folder and then in all above it.
PLACES = tuple(
    Path(folder, name)
    for folder in (".azureml", "aml_config", "")
    for name in ("config.json", "project.json")
)
TEMPORARY_CONFIG = json.dumps(
    {
        "subscription_id": SUBSCRIPTION,
        "resource_group": RESOURCE_GROUP,
        "workspace_name": WORKSPACE_NAME,
        "written_by": "mnist_deploy.local exec, which removes this file when it ends",
    },
    indent=4,
).encode()


def find_config(folder: Path) -> Path | None:
    """The file that the SDK would read in `folder`; None if there is none but a temporary one."""
    for place in PLACES:
        for parent in (folder, *folder.parents):
            if (parent / place).is_file():
                return None if has_temporary_content(parent / place) else parent / place
    return None


def has_temporary_content(file: Path) -> bool:
    """Whether :func:`write_temporary_config` wrote the file, also in a process that was killed."""
    try:
        return file.read_bytes() == TEMPORARY_CONFIG
    except OSError:
        return False


def is_temporary_config(file: Path) -> bool:
    """Whether `exec` wrote the file; a file that no `exec` has locked is removed."""
    if not has_temporary_content(file):
        return False
    with contextlib.suppress(OSError):
        _remove_unused(file, os.open(file, os.O_RDONLY))
    return True


def read_subscription(file: Path) -> str | None:
    """The subscription that a config.json names; None if the SDK could not use it either."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        scope = content.get("Scope")
        found = scope.split("/")[2] if scope else content["subscription_id"]
        return found if isinstance(found, str) else None
    except (OSError, ValueError, KeyError, IndexError, AttributeError):
        return None


@contextlib.contextmanager
def write_temporary_config(folder: Path) -> Iterator[Path]:
    """Keep a config.json for the local workspace in ``folder/.azureml`` while the block runs.

    Processes that need it at the same time share the file, and the last of them removes it. A file
    of the user's, which existed before or is written meanwhile, is left alone.

    Raises
    ------
    OSError
        If it cannot be written.
    """
    file = folder / ".azureml" / "config.json"
    is_new_folder = has_temporary_content(file) or not file.parent.exists()
    file.parent.mkdir(exist_ok=True)
    descriptor = _share(file)
    try:
        yield file
    finally:
        with contextlib.suppress(BlockingIOError, FileNotFoundError):
            _remove_unused(file, descriptor)
        if is_new_folder:
            with contextlib.suppress(OSError):  # the folder has other files by now
                file.parent.rmdir()


def _remove_unused(file: Path, descriptor: int) -> None:
    """Close a temporary config, and remove it.

    Raises
    ------
    BlockingIOError
        If another process uses it.
    FileNotFoundError
        If another process has removed it.
    """
    try:
        filesystem.lock(descriptor, wait=False)
        is_temporary = has_temporary_content(file)
    except BaseException:
        os.close(descriptor)
        raise
    if is_temporary:
        filesystem.remove_locked(file, descriptor)
    else:
        os.close(descriptor)


def _share(file: Path) -> int:
    """Write the file unless it is there, and hold a shared lock on it."""
    while True:
        with contextlib.suppress(FileExistsError), open(file, "xb") as new:
            new.write(TEMPORARY_CONFIG)
        try:
            descriptor = os.open(file, os.O_RDONLY)
        except FileNotFoundError:
            continue  # the last process that shared it has just removed it
        filesystem.lock(descriptor, shared=True)
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), os.stat(file)):
                return descriptor
        os.close(descriptor)
