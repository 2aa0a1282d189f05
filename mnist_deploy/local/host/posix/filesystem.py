"""Files of POSIX systems: flock, symbolic links, file modes."""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
from pathlib import Path
from typing import IO, Any

CAN_LINK = True


def lock(file: IO[Any] | int, *, shared: bool = False, wait: bool = True) -> None:
    """Lock an open file until the file is closed, or change the kind of its lock.

    Raises
    ------
    BlockingIOError
        Without `wait`, if another process holds a lock that excludes this one.
    """
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    fcntl.flock(file, kind if wait else kind | fcntl.LOCK_NB)


def remove_locked(file: Path, descriptor: int) -> None:
    """Remove a file on which this process holds an exclusive lock, and close it."""
    try:
        file.unlink()
    finally:
        os.close(descriptor)


def open_log(file: Path) -> IO[bytes]:
    """Open a log file to which several processes may append."""
    return open(file, "ab")


def replace_file(part: Path, file: Path) -> None:
    """Rename `part` to `file`, which may exist and be read by other processes."""
    os.replace(part, file)


def remove_file(file: Path) -> None:
    """Remove a file if it exists, although other processes may read it."""
    file.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Flush the directory entries of a folder, so that a renamed file survives a power failure."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_folder(folder: Path) -> None:
    """Remove a folder; files that cannot be removed are left."""
    shutil.rmtree(folder, ignore_errors=True)


def mount(source: Path, target: Path) -> None:
    """Make a file or folder visible at another path, which must not exist."""
    target.symlink_to(source.absolute())


def is_own_folder(folder: Path) -> bool:
    status = folder.lstat()
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid()


def find_access_problem(folder: Path) -> str | None:
    """Return why other users could read or replace files of a folder; None if they cannot."""
    status = os.stat(folder)
    if status.st_uid != os.geteuid():
        return (
            f"{folder} belongs to another user (id {status.st_uid}), so that user could read all "
            "data of this workspace. Set MNIST_DEPLOY_HOME to a folder of your own."
        )
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return (
            f"Other users may write to {folder}, and could impersonate the control plane. "
            f"Correct its permissions: chmod 700 {folder}"
        )
    return None


def is_protected_by_mode() -> bool:
    """Whether file modes apply to this user; the superuser may write read-only files."""
    return os.geteuid() != 0


def explain(error: OSError) -> str:
    """Describe an error of a file, with what to do where a limit of the system is its cause."""
    return str(error)


def with_slashes(path: str) -> str:
    """Convert a relative path of this system to the slashes of URLs."""
    return path
