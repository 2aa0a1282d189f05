"""Processes of POSIX systems: sessions, process groups, inherited file descriptors.

Linux only: pidfds (`open_process`), the fork server (`CAN_FORK`), child subreapers
(`adopt_orphans`), all guarded by `IS_LINUX`, and the list of children in ``/proc``
(`has_children`, which assumes on macOS that there are some). Never run on macOS.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

IS_LINUX = sys.platform == "linux"
CAN_FORK = IS_LINUX  # waiting for a fork and killing it require its pidfd
PR_SET_CHILD_SUBREAPER = 36  # of Linux's prctl
GROUP_HAS_ALL_DESCENDANTS = False  # a daemon makes its own process group

# Variables that a Python process requires; it inherits no others.
INHERITED = ("PATH", "PYTHONPATH", "VIRTUAL_ENV", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH",
             "LANG", "LC_ALL", "TMPDIR", "TZ", "HOME")  # fmt: skip

ENCODING: Mapping[str, str] = {}  # Linux and macOS have UTF-8


class HasPid(Protocol):
    @property
    def pid(self) -> int: ...


def start_background(arguments: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
    """Start this Python in a new session, which the terminal's Ctrl-C does not interrupt.

    Parameters
    ----------
    arguments : sequence of str
        The arguments of the interpreter: ``-m``, a module, and so on.
    **options
        As for `subprocess.Popen`.
    """
    return subprocess.Popen([sys.executable, *arguments], start_new_session=True, **options)


def start_child(
    module: str,
    arguments: Sequence[str],
    sockets: Mapping[str, socket.socket],
    *,
    flags: Sequence[str] = (),
    **options: Any,
) -> subprocess.Popen[bytes]:
    """Start a module in a new session, with inherited sockets.

    Parameters
    ----------
    module : str
        The module, which must call `take_sockets` first.
    arguments : sequence of str
        The arguments of the module.
    sockets : mapping of str to socket
        The sockets to inherit; they stay open in this process too.
    flags : sequence of str
        The options of the interpreter.
    **options
        As for `subprocess.Popen`.
    """
    passed = {name: each.fileno() for name, each in sockets.items()}
    return subprocess.Popen(
        [sys.executable, *flags, "-m", module, json.dumps(passed), *arguments],
        stdin=subprocess.DEVNULL,
        pass_fds=tuple(passed.values()),
        start_new_session=True,
        **options,
    )


def take_sockets() -> dict[str, socket.socket]:
    """Return the sockets passed by `start_child`, and exclude them from inheritance by children.

    Call it once, before any child process is started.
    """
    return open_sockets(json.loads(sys.argv.pop(1)))


def open_sockets(descriptors: Mapping[str, int]) -> dict[str, socket.socket]:
    for descriptor in descriptors.values():
        os.set_inheritable(descriptor, False)
    return {name: socket.socket(fileno=fd) for name, fd in descriptors.items()}


def start_command(command: Sequence[str], **options: Any) -> subprocess.Popen[bytes]:
    """Start a user's command; ``python`` is the running interpreter."""
    if command[0] == "python":
        command = [sys.executable, *command[1:]]
    return subprocess.Popen(command, start_new_session=True, **options)


def find_command(command: Sequence[str], variables: Mapping[str, str]) -> Sequence[str]:
    """Resolve a command for `subprocess.Popen`, which searches the PATH of `variables`."""
    return command


def wait_for(process: subprocess.Popen[Any]) -> int:
    """Wait for the end of a child; the wait can be interrupted by Ctrl-C."""
    return process.wait()


def open_process(pid: int) -> int | None:
    """Return a file descriptor that is readable after a child's end; None without pidfds."""
    return os.pidfd_open(pid) if IS_LINUX else None


def kill_group(process: HasPid) -> None:
    """Kill a child of this process, and the process group of the child."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def kill_own_group() -> None:
    """Kill this process and its process group."""
    os.killpg(0, signal.SIGKILL)


def adopt_orphans() -> None:
    """Make this process the parent of its orphaned descendants, so that they can be killed."""
    if IS_LINUX:
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)


def has_children() -> bool:
    """Whether this process has, or may have, children."""
    try:
        threads = list(Path("/proc/self/task").iterdir())
        return any((thread / "children").read_text() for thread in threads)
    except OSError:
        return True
