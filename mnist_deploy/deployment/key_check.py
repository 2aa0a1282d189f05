"""Require a key for scoring: gunicorn's configuration in a package.

Microsoft's inference server does not check keys, but it runs in gunicorn, which reads a
``gunicorn.conf.py`` beside the scoring script: a copy of this file. The key is in the
environment variable SERVICE_KEY; the server does not start without this variable.
"""

from __future__ import annotations

import hmac
import json
import os
import sys
from collections.abc import Callable, Iterable
from typing import Any

control_socket_disable = True  # of gunicorn: the container's file system is read-only

UNAUTHORIZED = {"message": "A key is required: send the header 'Authorization: Bearer <key>'."}


def on_starting(server: Any) -> None:
    """Called by gunicorn before it starts workers."""
    if not os.environ.get("SERVICE_KEY"):
        sys.exit(
            "The environment variable SERVICE_KEY is empty: scoring would need no key. Set it to "
            "the key that clients send."
        )


def post_worker_init(worker: Any) -> None:
    """Called by gunicorn when a worker has loaded the server, before its first request."""
    worker.wsgi = check_key(worker.wsgi, os.environ["SERVICE_KEY"])


def check_key(
    server: Callable[..., Iterable[bytes]], key: str
) -> Callable[[dict[str, Any], Callable], Iterable[bytes]]:
    """Wrap a WSGI application with the check; the health probe ``/`` needs no key."""
    expected, content = f"Bearer {key}".encode(), json.dumps(UNAUTHORIZED).encode()

    def checked(environ: dict[str, Any], start_response: Callable) -> Iterable[bytes]:
        received = environ.get("HTTP_AUTHORIZATION", "").encode("latin-1")
        if environ["PATH_INFO"] == "/" or hmac.compare_digest(received, expected):
            return server(environ, start_response)
        for _ in range(256):  # clients read the response after they have sent the body
            if not environ["wsgi.input"].read(2**20):
                break
        headers = [("Content-Type", "application/json"), ("Content-Length", str(len(content)))]
        start_response("401 Unauthorized", [*headers, ("WWW-Authenticate", "Bearer")])
        return [content]

    return checked
