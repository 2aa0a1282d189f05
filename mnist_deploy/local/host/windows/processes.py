"""Processes of Windows: job objects, shared sockets, the launcher of virtual environments."""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from . import job_objects

assert sys.platform == "win32"  # for mypy

CAN_FORK = False
GROUP_HAS_ALL_DESCENDANTS = True  # no process can leave its job object
INHERITED = ("PATH", "PYTHONPATH", "VIRTUAL_ENV", "LANG", "TZ", "SYSTEMROOT", "SYSTEMDRIVE",
             "WINDIR", "TEMP", "TMP", "USERPROFILE", "APPDATA", "LOCALAPPDATA", "PROGRAMDATA",
             "PATHEXT", "COMSPEC", "NUMBER_OF_PROCESSORS", "PROCESSOR_ARCHITECTURE")  # fmt: skip
# For scripts that open text files without an encoding: as on Azure, they get UTF-8.
ENCODING: Mapping[str, str] = {"PYTHONUTF8": "1"}
POSIX_SHELL = ("/bin/sh", "-c")  # in place of which `start_command` starts cmd.exe
DETACHED = subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW
WAIT_INTERVAL = 0.05  # seconds


def interpreter_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of `subprocess.Popen` that start this Python.

    The ``python.exe`` of a virtual environment starts another process with an unknown id.
    Therefore the base interpreter is started, with the variable that ``python.exe`` sets.
    """
    base = getattr(sys, "_base_executable", sys.executable)
    variables = {**ENCODING, **(options.get("env") or os.environ)}
    if base != sys.executable:
        variables["__PYVENV_LAUNCHER__"] = sys.executable
    return {**options, "executable": base, "env": variables, "creationflags": DETACHED}


def start_background(arguments: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
    """Start this Python without a console, so that Ctrl-C does not interrupt it."""
    return subprocess.Popen([sys.executable, *arguments], **interpreter_options(options))


def start_child(
    module: str,
    arguments: Sequence[str],
    sockets: Mapping[str, socket.socket],
    *,
    flags: Sequence[str] = (),
    **options: Any,
) -> job_objects.Child:
    """Start a module in a job object; sockets are passed in the first line of its input."""
    child = job_objects.Child(
        [sys.executable, *flags, "-m", module, *arguments],
        stdin=subprocess.PIPE,
        **interpreter_options(options),
    )
    try:
        child.assign_job()
        shares = {
            name: base64.b64encode(each.share(child.pid)).decode() for name, each in sockets.items()
        }
        assert child.stdin is not None
        child.stdin.write(json.dumps(shares).encode() + b"\n")
        child.stdin.close()
    except BaseException:
        child.kill()
        child.wait()
        raise
    return child


def take_sockets() -> dict[str, socket.socket]:
    shares = json.loads(sys.stdin.buffer.readline() or sys.exit("The starting process has ended."))
    with open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    return {name: socket.fromshare(base64.b64decode(each)) for name, each in shares.items()}


def open_sockets(descriptors: Mapping[str, int]) -> dict[str, socket.socket]:
    raise NotImplementedError("Windows has no fork server")


def start_command(command: Sequence[str], **options: Any) -> subprocess.Popen[bytes]:
    if command[0] == "python":
        command = [sys.executable, *command[1:]]
        return subprocess.Popen(command, **interpreter_options(options))
    if tuple(command[:2]) == POSIX_SHELL:
        return subprocess.Popen(command_line(command[2]), creationflags=DETACHED, **options)
    return subprocess.Popen(command, creationflags=DETACHED, **options)


def command_line(text: str) -> str:
    """Convert lines for a POSIX shell to a command line for ``cmd.exe``, where it can run them.

    ``cmd.exe`` removes the outer quotation marks (/s) and no others, and runs one line.
    """
    lines = [line.strip() for line in text.replace("\\\n", " ").splitlines()]
    return f'cmd.exe /d /s /c "{" & ".join(filter(None, lines))}"'


def find_command(command: Sequence[str], variables: Mapping[str, str]) -> Sequence[str]:
    """Resolve a command on the PATH of `variables`; Windows searches this process's PATH."""
    return [shutil.which(command[0], path=variables.get("PATH")) or command[0], *command[1:]]


def wait_for(process: subprocess.Popen[Any]) -> int:
    """Wait in intervals: Python calls no signal handler during one wait."""
    while True:
        with suppress(subprocess.TimeoutExpired):
            return process.wait(WAIT_INTERVAL)


def open_process(pid: int) -> int | None:
    return None


def kill_group(process: Any) -> None:
    """Kill a process and the other processes of its job object."""
    if isinstance(process, job_objects.Child):
        process.kill_all()
    else:
        process.kill()


def kill_own_group() -> None:
    """Kill this process; the parent process has the job object of the process tree."""
    os.kill(os.getpid(), signal.SIGTERM)


def adopt_orphans() -> None:
    """Do nothing: the job object contains all descendants."""


def has_children() -> bool:
    return False  # the job object kills all children
