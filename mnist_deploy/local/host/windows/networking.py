"""Sockets and event loops of Windows: loopback TCP with a secret, select."""

from __future__ import annotations

import asyncio
import secrets
import select
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

assert sys.platform == "win32"  # for mypy

MAX_SOCKETS = 500  # of one event loop: `select` takes 512


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
