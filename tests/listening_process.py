"""Find the process that listens at a URI."""

from __future__ import annotations

from urllib.parse import urlsplit

import psutil


def find_listening_process(uri: str) -> psutil.Process:
    """The child process of this one that listens at the port of a URI."""
    (server,) = (
        process
        for process in psutil.Process().children(recursive=True)
        for socket in process.net_connections()
        if socket.status == psutil.CONN_LISTEN and socket.laddr.port == urlsplit(uri).port
    )
    return server
