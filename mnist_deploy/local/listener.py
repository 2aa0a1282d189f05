"""The listeners of the control plane on the loopback: one of its own for each surface."""

from __future__ import annotations

import threading
from typing import Any

from werkzeug.serving import ThreadedWSGIServer, WSGIRequestHandler

MOST = 250  # connections at once


class QuietHandler(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 120  # seconds that a connection is kept on which nothing comes

    def log_request(self, *_: Any) -> None:
        """The log is for errors."""


class Listener(ThreadedWSGIServer):
    """Takes `MOST` connections at once; whoever comes then waits in the socket's queue.

    Anybody on this machine can connect, and a process without file descriptors can look after
    nothing that runs.
    """

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self._room = threading.Semaphore(MOST)

    def process_request(self, request: Any, client_address: Any) -> None:
        self._room.acquire()
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Called once for each, however it ends."""
        super().shutdown_request(request)
        self._room.release()
