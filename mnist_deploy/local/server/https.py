"""The listener on the loopback: https, and plain http for what nobody could read otherwise."""

from __future__ import annotations

import logging
import socket
import ssl
import sys
from pathlib import Path
from typing import Any

from flask import Flask

from ..listener import Listener, QuietHandler
from ..tls import create_server_context

GREETING_LIMIT = 10.0  # seconds for the TLS handshake
TLS_GREETING = b"\x16"  # what a client that speaks TLS begins with


class Handler(QuietHandler):
    def make_environ(self) -> dict[str, Any]:
        scheme = "https" if isinstance(self.connection, ssl.SSLSocket) else "http"
        return super().make_environ() | {"wsgi.url_scheme": scheme}


class HttpsServer(Listener):
    """Greets each client in its own thread, so that a silent one keeps nobody waiting.

    Parameters
    ----------
    folder : Path
        Where its new certificate is put.
    port : int
        0 lets the system choose.
    """

    app: Flask
    ssl_context: ssl.SSLContext

    def __init__(self, folder: Path, port: int = 0) -> None:
        super().__init__("127.0.0.1", port, None, Handler)
        self.ssl_context = create_server_context(folder)

    def log(self, type: str, message: str, *args: Any) -> None:
        """As werkzeug does, but not of a client that goes away in the middle of an answer."""
        if not isinstance(sys.exc_info()[1], ssl.SSLError):
            super().log(type, message, *args)

    def finish_request(self, connection: Any, address: Any) -> None:
        connection.settimeout(GREETING_LIMIT)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            if connection.recv(1, socket.MSG_PEEK) != TLS_GREETING:
                super().finish_request(connection, address)
                return
            with self.ssl_context.wrap_socket(connection, server_side=True) as secure:
                super().finish_request(secure, address)
        except (OSError, ssl.SSLError) as error:
            logging.getLogger(__name__).debug("connection ended: %s", error)
