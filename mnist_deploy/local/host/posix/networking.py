"""Sockets and event loops of POSIX systems: UNIX sockets, poll."""

from __future__ import annotations

import asyncio
import resource
import secrets
import select
import socket
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

MAX_SOCKETS = 1 << 20  # of one event loop: no limit
MAX_DESCRIPTORS = 4096  # a service needs eight; the default limit of macOS is 256


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
