"""Linux and macOS: sessions and signals, inherited file descriptors, flock, UNIX sockets.

Linux only: pidfds (`open_process`), the fork server (`CAN_FORK`), child subreapers
(`adopt_orphans`), all guarded by `IS_LINUX`, and the list of children in ``/proc``
(`has_children`, which assumes on macOS that there are some). Never run on macOS.
"""

from __future__ import annotations

import asyncio
import ctypes
import fcntl
import json
import os
import resource
import secrets
import select
import shlex
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, Protocol

IS_LINUX = sys.platform == "linux"
CAN_LINK = True
CAN_FORK = IS_LINUX  # waiting for a fork and killing it require its pidfd
PR_SET_CHILD_SUBREAPER = 36  # of Linux's prctl
MAX_SOCKETS = 1 << 20  # of one event loop: no limit
MAX_DESCRIPTORS = 4096  # a service needs eight; the default limit of macOS is 256

# Variables that a Python process requires; it inherits no others.
INHERITED = ("PATH", "PYTHONPATH", "VIRTUAL_ENV", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH",
             "LANG", "LC_ALL", "TMPDIR", "TZ", "HOME")  # fmt: skip

ENCODING: Mapping[str, str] = {}  # Linux and macOS have UTF-8


class HasPid(Protocol):
    @property
    def pid(self) -> int: ...


# Locks and files


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


# Processes


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


def stop_signals() -> tuple[tuple[int, ...], ...]:
    """Return the signals that stop a process, one tuple for each attempt."""
    return (signal.SIGCONT, signal.SIGTERM), (signal.SIGKILL,)


def signal_of(status: int) -> int | None:
    """Return the signal encoded in a shell's exit status; None without one."""
    number = status - 128
    return number if 0 < number < signal.NSIG else None


# Sockets and event loops


def listen(port: int = 0, backlog: int | None = None) -> socket.socket:
    """Listen at a port of 127.0.0.1; with 0 the system chooses the port."""
    return socket.create_server(("127.0.0.1", port), backlog=backlog)


def socket_folder() -> str:
    """Create a temporary folder with a short path: UNIX socket paths have at most 100 bytes."""
    return tempfile.gettempdir() if len(tempfile.gettempdir()) < 60 else "/tmp"


def listen_privately(folder: Path, name: str = "") -> tuple[socket.socket, str]:
    """Listen for connections of this user's processes only; return the socket and its address.

    Parameters
    ----------
    folder : Path
        A folder that only this user can access. Its path must be short: the path of a UNIX
        socket has at most about 100 bytes.
    name : str
        The name of the socket file; random by default.
    """
    listener = socket.socket(socket.AF_UNIX)
    try:
        listener.bind(str(folder / (name or secrets.token_hex(4))))
    except OSError:
        listener.close()
        raise
    listener.listen(1024)
    return listener, listener.getsockname()


def close_privately(listener: socket.socket, address: str) -> None:
    listener.close()
    Path(address).unlink(missing_ok=True)


async def connect_privately(factory: Callable[[], asyncio.Protocol], address: str) -> None:
    """Connect to an address of `listen_privately`."""
    await asyncio.get_running_loop().create_unix_connection(factory, address)


def secret_of(address: str) -> str:
    """Return the secret required in requests to an address of `listen_privately`; may be empty."""
    return ""


def new_event_loop() -> asyncio.AbstractEventLoop:
    return asyncio.new_event_loop()


def wait_readable(sources: Iterable[socket.socket | int | Any], seconds: float | None) -> bool:
    """Wait until a source is readable; return False after a time-out."""
    poller = select.poll()
    for source in sources:
        poller.register(source, select.POLLIN)
    return bool(poller.poll(None if seconds is None else 1000 * seconds))


def max_connections() -> int:
    """Return the connection limit of a server: half of the process's file descriptors."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2


def raise_descriptor_limit() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(MAX_DESCRIPTORS, hard)), hard))


# Time limits


def on_alarm(handler: Callable[..., Any]) -> None:
    """Call `handler` in the main thread when the time of `set_alarm` has passed."""
    signal.signal(signal.SIGALRM, handler)


def set_alarm(seconds: float) -> float:
    """Set the alarm, or cancel it with 0; return the remaining seconds of the previous alarm."""
    return signal.setitimer(signal.ITIMER_REAL, seconds)[0]


def block_signals() -> None:
    """Block all signals in this thread, so that other threads receive them."""
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())


# Terminals

TERMINATION_SIGNALS = (signal.SIGTERM, signal.SIGHUP)
FORWARDED_SIGNALS = (signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGHUP)
TERMINAL_SIGNALS = (signal.SIGINT, signal.SIGQUIT)  # from the keyboard, to the whole foreground
BROKEN_PIPE = signal.SIGPIPE


def is_in_foreground() -> bool:
    """Whether the terminal's Ctrl-C interrupts this process."""
    try:
        with open("/dev/tty") as terminal:
            return os.tcgetpgrp(terminal.fileno()) == os.getpgrp()
    except OSError:
        return False


SHELL = "terminals"  # where the lines of the functions `shell_…` can be pasted


def has_display() -> bool:
    """Whether a graphical browser can be opened; a text browser would hide the output."""
    return sys.platform == "darwin" or any(map(os.environ.get, ("DISPLAY", "WAYLAND_DISPLAY")))


def shell_unset(name: str) -> str:
    """Return the shell command that removes an environment variable."""
    return f"unset {name}"


def shell_set(name: str, value: str) -> str:
    """Return the shell command that sets an environment variable."""
    return f"export {name}={shlex.quote(value)}"


def shell_prepend(name: str, value: str) -> str:
    """Return the shell command that prepends a path to an environment variable."""
    return f'export {name}={shlex.quote(value)}"${{{name}:+:${name}}}"'
