"""Files of Windows: LockFileEx, files that another process has open, the limit of paths."""

from __future__ import annotations

import ctypes
import msvcrt
import os
import shutil
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from ctypes import wintypes
from functools import partial
from pathlib import Path
from typing import IO, Any

assert sys.platform == "win32"  # for mypy

CAN_LINK = False  # without a privilege that few users have

LOCK_OFFSET = 1 << 30  # in units of 4 GB: Windows blocks access to locked bytes
LOCKFILE_FAIL_IMMEDIATELY, LOCKFILE_EXCLUSIVE_LOCK = 1, 2
FILE_APPEND_DATA, FILE_READ_ATTRIBUTES, SYNCHRONIZE = 0x4, 0x80, 0x100000
FILE_SHARE_ALL = 7  # others may read, write and delete the file
OPEN_ALWAYS, FILE_ATTRIBUTE_NORMAL = 4, 0x80
MAX_PATH = 260  # characters, with a NUL at the end
RETRY_INTERVAL, REMOVE_TIMEOUT = 0.05, 5.0  # seconds

kernel32 = ctypes.WinDLL("kernel32", use_last_error=True)
kernel32.CreateFileW.restype = wintypes.HANDLE
kernel32.CreateFileW.argtypes = [wintypes.LPCWSTR, wintypes.DWORD, wintypes.DWORD, wintypes.LPVOID,
                                 wintypes.DWORD, wintypes.DWORD, wintypes.HANDLE]  # fmt: skip
kernel32.LockFileEx.argtypes = [wintypes.HANDLE, wintypes.DWORD, wintypes.DWORD, wintypes.DWORD,
                                wintypes.DWORD, wintypes.LPVOID]  # fmt: skip
kernel32.UnlockFileEx.argtypes = [wintypes.HANDLE, wintypes.DWORD, wintypes.DWORD, wintypes.DWORD,
                                  wintypes.LPVOID]  # fmt: skip


class Overlapped(ctypes.Structure):
    _fields_ = (
        ("Internal", ctypes.c_void_p),
        ("InternalHigh", ctypes.c_void_p),
        ("Offset", wintypes.DWORD),
        ("OffsetHigh", wintypes.DWORD),
        ("hEvent", wintypes.HANDLE),
    )


def lock(file: IO[Any] | int, *, shared: bool = False, wait: bool = True) -> None:
    """Lock a byte beyond the content; a lock is released before its kind is changed."""
    handle = msvcrt.get_osfhandle(file if isinstance(file, int) else file.fileno())
    place = Overlapped(OffsetHigh=LOCK_OFFSET)
    kernel32.UnlockFileEx(handle, 0, 1, 0, ctypes.byref(place))
    flags = LOCKFILE_FAIL_IMMEDIATELY | (0 if shared else LOCKFILE_EXCLUSIVE_LOCK)
    while not kernel32.LockFileEx(handle, flags, 0, 1, 0, ctypes.byref(place)):
        if not wait:
            raise BlockingIOError("another process has locked the file")
        time.sleep(RETRY_INTERVAL)


def remove_locked(file: Path, descriptor: int) -> None:
    """Close a file, and remove it unless another process has opened it."""
    os.close(descriptor)
    with suppress(PermissionError):
        file.unlink()


def open_log(file: Path) -> IO[bytes]:
    """Open a log file so that every write, including a child's, is appended."""
    handle = kernel32.CreateFileW(
        str(file),
        FILE_APPEND_DATA | FILE_READ_ATTRIBUTES | SYNCHRONIZE,
        FILE_SHARE_ALL,
        None,
        OPEN_ALWAYS,
        FILE_ATTRIBUTE_NORMAL,
        None,
    )
    if handle in (None, wintypes.HANDLE(-1).value):
        raise ctypes.WinError(ctypes.get_last_error())
    return open(msvcrt.open_osfhandle(handle, os.O_APPEND), "wb", buffering=0)


def retry(function: Callable[..., Any], *arguments: Any) -> None:
    """Repeat a call that fails while another process has a file open."""
    give_up_at = time.monotonic() + REMOVE_TIMEOUT
    while True:
        try:
            function(*arguments)
            return
        except PermissionError:
            if time.monotonic() > give_up_at:
                raise
        time.sleep(RETRY_INTERVAL)


def replace_file(part: Path, file: Path) -> None:
    """Rename `part` to `file`; retry while another process has `file` open."""
    retry(os.replace, part, file)


def remove_file(file: Path) -> None:
    """Remove a file if it exists; leave it if another process has it open for long."""
    with suppress(PermissionError):
        retry(partial(file.unlink, missing_ok=True))


def sync_folder(folder: Path) -> None:
    """Do nothing: Windows has no call that flushes directory entries."""


def remove_folder(folder: Path) -> None:
    """Remove a folder; retry while a process that is ending has files of it open."""
    give_up_at = time.monotonic() + REMOVE_TIMEOUT
    shutil.rmtree(folder, ignore_errors=True)
    while folder.exists() and time.monotonic() < give_up_at:
        time.sleep(RETRY_INTERVAL)
        shutil.rmtree(folder, ignore_errors=True)


def mount(source: Path, target: Path) -> None:
    """Copy a file or folder, because of `CAN_LINK`."""
    if source.is_dir():
        shutil.copytree(source, target)
    else:
        shutil.copyfile(source, target)


def is_own_folder(folder: Path) -> bool:
    return folder.is_dir() and not folder.is_symlink()


def find_access_problem(folder: Path) -> str | None:
    """Return None: files inherit the ACL of the user's profile, the default folder's parent."""
    return None


def is_protected_by_mode() -> bool:
    return False


def explain(error: OSError) -> str:
    length = len(str(error.filename2 or error.filename or ""))
    if length < MAX_PATH:
        return str(error)
    return (
        f"{error}. The path has {length} characters, and Windows permits {MAX_PATH - 1}: set "
        "MNIST_DEPLOY_HOME to a shorter path, choose shorter names, or enable long paths "
        "(LongPathsEnabled in the registry)."
    )


def with_slashes(path: str) -> str:
    return path.replace("\\", "/")
