"""Windows: job objects, shared sockets, LockFileEx, loopback TCP with a secret.

The module ``posix`` has the same names, with their docstrings.
"""

from __future__ import annotations

import asyncio
import base64
import ctypes
import json
import msvcrt
import os
import secrets
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from ctypes import wintypes
from functools import partial
from pathlib import Path
from typing import IO, Any

assert sys.platform == "win32"  # for mypy

CAN_FORK = False
CAN_LINK = False  # without a privilege that few users have
MAX_SOCKETS = 500  # of one event loop: `select` takes 512
INHERITED = ("PATH", "PYTHONPATH", "VIRTUAL_ENV", "LANG", "TZ", "SYSTEMROOT", "SYSTEMDRIVE",
             "WINDIR", "TEMP", "TMP", "USERPROFILE", "APPDATA", "LOCALAPPDATA", "PROGRAMDATA",
             "PATHEXT", "COMSPEC", "NUMBER_OF_PROCESSORS", "PROCESSOR_ARCHITECTURE")  # fmt: skip
# For scripts that open text files without an encoding: as on Azure, they get UTF-8.
ENCODING: Mapping[str, str] = {"PYTHONUTF8": "1"}
POSIX_SHELL = ("/bin/sh", "-c")  # in place of which `start_command` starts cmd.exe

LOCK_OFFSET = 1 << 30  # in units of 4 GB: Windows blocks access to locked bytes
LOCKFILE_FAIL_IMMEDIATELY, LOCKFILE_EXCLUSIVE_LOCK = 1, 2
FILE_APPEND_DATA, FILE_READ_ATTRIBUTES, SYNCHRONIZE = 0x4, 0x80, 0x100000
FILE_SHARE_ALL = 7  # others may read, write and delete the file
OPEN_ALWAYS, FILE_ATTRIBUTE_NORMAL = 4, 0x80
JOB_OBJECT_EXTENDED_LIMIT_INFORMATION = 9
JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE = 0x2000
DETACHED = subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW
MAX_PATH = 260  # characters, with a NUL at the end
RETRY_INTERVAL, REMOVE_TIMEOUT = 0.05, 5.0  # seconds

kernel32 = ctypes.WinDLL("kernel32", use_last_error=True)
kernel32.CreateFileW.restype = kernel32.CreateJobObjectW.restype = wintypes.HANDLE
kernel32.CreateFileW.argtypes = [wintypes.LPCWSTR, wintypes.DWORD, wintypes.DWORD, wintypes.LPVOID,
                                 wintypes.DWORD, wintypes.DWORD, wintypes.HANDLE]  # fmt: skip
kernel32.CreateJobObjectW.argtypes = [wintypes.LPVOID, wintypes.LPCWSTR]
kernel32.SetInformationJobObject.argtypes = [wintypes.HANDLE, ctypes.c_int, wintypes.LPVOID,
                                             wintypes.DWORD]  # fmt: skip
kernel32.AssignProcessToJobObject.argtypes = [wintypes.HANDLE, wintypes.HANDLE]
kernel32.TerminateJobObject.argtypes = [wintypes.HANDLE, wintypes.UINT]
kernel32.CloseHandle.argtypes = [wintypes.HANDLE]
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


class JobLimits(ctypes.Structure):
    """JOBOBJECT_EXTENDED_LIMIT_INFORMATION."""

    _fields_ = (
        ("PerProcessUserTimeLimit", ctypes.c_int64),
        ("PerJobUserTimeLimit", ctypes.c_int64),
        ("LimitFlags", wintypes.DWORD),
        ("MinimumWorkingSetSize", ctypes.c_size_t),
        ("MaximumWorkingSetSize", ctypes.c_size_t),
        ("ActiveProcessLimit", wintypes.DWORD),
        ("Affinity", ctypes.c_size_t),
        ("PriorityClass", wintypes.DWORD),
        ("SchedulingClass", wintypes.DWORD),
        ("IoInfo", ctypes.c_uint64 * 6),
        ("ProcessMemoryLimit", ctypes.c_size_t),
        ("JobMemoryLimit", ctypes.c_size_t),
        ("PeakProcessMemoryUsed", ctypes.c_size_t),
        ("PeakJobMemoryUsed", ctypes.c_size_t),
    )


# Locks and files


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


# Processes


class Child(subprocess.Popen[bytes]):
    """A process in a job object; the end of this process kills all processes of the job object."""

    job: wintypes.HANDLE | None = None

    def assign_job(self) -> None:
        self.job = kernel32.CreateJobObjectW(None, None)
        limits = JobLimits(LimitFlags=JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE)
        is_limited = kernel32.SetInformationJobObject(
            self.job,
            JOB_OBJECT_EXTENDED_LIMIT_INFORMATION,
            ctypes.byref(limits),
            ctypes.sizeof(limits),
        )
        handle = int(self._handle)  # type: ignore[attr-defined]
        if not (is_limited and kernel32.AssignProcessToJobObject(self.job, handle)):
            raise ctypes.WinError(ctypes.get_last_error())

    def kill_all(self) -> None:
        if self.job is not None:
            kernel32.TerminateJobObject(self.job, 1)

    def __del__(self, *more: Any) -> None:
        if self.job is not None:
            kernel32.CloseHandle(self.job)
            self.job = None
        super().__del__(*more)  # type: ignore[misc]


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
) -> Child:
    """Start a module in a job object; sockets are passed in the first line of its input."""
    child = Child(
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
            return process.wait(RETRY_INTERVAL)


def open_process(pid: int) -> int | None:
    return None


def kill_group(process: Any) -> None:
    """Kill a process and the other processes of its job object."""
    if isinstance(process, Child):
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


def stop_signals() -> tuple[tuple[int, ...], ...]:
    return ((signal.SIGTERM,),)  # which kills


def signal_of(status: int) -> int | None:
    return None


# Sockets and event loops


def listen(port: int = 0, backlog: int | None = None) -> socket.socket:
    """Listen exclusively at a port of 127.0.0.1."""
    listener = socket.socket()
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
        listener.bind(("127.0.0.1", port))
        listener.listen(*([] if backlog is None else [backlog]))
    except OSError:
        listener.close()
        raise
    return listener


def socket_folder() -> str:
    return tempfile.gettempdir()


def listen_privately(folder: Path, name: str = "") -> tuple[socket.socket, str]:
    """Listen at a port; the address contains a secret, which every request must carry."""
    listener = listen(backlog=1024)
    return listener, f"127.0.0.1:{listener.getsockname()[1]}/{secrets.token_hex(16)}"


def close_privately(listener: socket.socket, address: str) -> None:
    listener.close()


async def connect_privately(factory: Callable[[], asyncio.Protocol], address: str) -> None:
    host, _, port = address.partition("/")[0].partition(":")
    await asyncio.get_running_loop().create_connection(factory, host, int(port))


def secret_of(address: str) -> str:
    return address.partition("/")[2]


def new_event_loop() -> asyncio.AbstractEventLoop:
    """Return a selector event loop: the proactor event loop does not support shared sockets."""
    return asyncio.SelectorEventLoop()


def wait_readable(sources: Iterable[Any], seconds: float | None) -> bool:
    waiting = list(sources)
    if not waiting:
        time.sleep(seconds or 0)
        return False
    return bool(select.select(waiting, [], [], seconds)[0])


def max_connections() -> int:
    return MAX_SOCKETS // 2  # a router opens one to a container for each


def raise_descriptor_limit() -> None:
    """Do nothing: `select` determines the limit."""


# Time limits


class Alarm:
    """Interrupts the main thread by SIGINT, which also interrupts `time.sleep`.

    SIGINT does not interrupt other blocking C functions, such as ``lock.acquire``. The first call
    of `set` starts the thread ``alarm``.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._due: float | None = None
        self._thread: threading.Thread | None = None
        self._handler: Callable[..., Any] = signal.default_int_handler

    def install(self, handler: Callable[..., Any]) -> None:
        self._handler = handler
        signal.signal(signal.SIGINT, self._interrupt)

    def set(self, seconds: float) -> float:
        with self._changed:
            now = time.monotonic()
            left = 0.0 if self._due is None else max(0.0, self._due - now)
            self._due = now + seconds if seconds else None
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, daemon=True, name="alarm")
                self._thread.start()
            self._changed.notify()
        return left

    def _run(self) -> None:
        with self._changed:
            while True:
                left = None if self._due is None else self._due - time.monotonic()
                if left is None or left > 0:
                    self._changed.wait(left)
                    continue
                signal.raise_signal(signal.SIGINT)
                self._changed.wait(RETRY_INTERVAL)

    def _interrupt(self, *arguments: Any) -> None:
        """Call the handler unless the alarm was canceled concurrently."""
        due = self._due
        if due is not None and time.monotonic() >= due:
            self._due = None
            self._handler(*arguments)


alarm = Alarm()
on_alarm, set_alarm = alarm.install, alarm.set


def block_signals() -> None:
    """Do nothing: Python calls signal handlers in the main thread, which SIGINT wakes."""


# Terminals

TERMINATION_SIGNALS = (signal.SIGTERM, signal.SIGBREAK)
FORWARDED_SIGNALS = (signal.SIGINT, signal.SIGBREAK, signal.SIGTERM)
TERMINAL_SIGNALS = (signal.SIGINT, signal.SIGBREAK)  # to all processes of the console
BROKEN_PIPE = 13


def is_in_foreground() -> bool:
    return True


SHELL = "PowerShell terminals"


def has_display() -> bool:
    return True


def shell_unset(name: str) -> str:
    return f"Remove-Item Env:{name} -ErrorAction Ignore"


def shell_set(name: str, value: str) -> str:
    return f"$env:{name} = {quote(value)}"


def shell_prepend(name: str, value: str) -> str:
    return f"$env:{name} = {quote(value)} + $(if ($env:{name}) {{ ';' + $env:{name} }})"


def quote(value: str) -> str:
    """Quote a string for PowerShell without expansion."""
    return "'" + value.replace("'", "''") + "'"
