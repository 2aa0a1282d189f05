"""Let nobody score without the key: gunicorn's configuration in a package.

Microsoft's inference server asks for no key, but it runs in gunicorn, which reads a
``gunicorn.conf.py`` beside the scoring script: a copy of this file. The key is in the
environment variable SERVICE_KEY; without one the server does not start.
"""

from __future__ import annotations

import hmac
import json
import os
import sys
from collections.abc import Callable, Iterable
from typing import Any

control_socket_disable = True  # a setting of gunicorn: its file system is read-only

REFUSAL = {"message": "This service asks for a key: send the header 'Authorization: Bearer <key>'."}


def on_starting(server: Any) -> None:
    """What gunicorn calls before anything else."""
    if not os.environ.get("SERVICE_KEY"):
        sys.exit("The environment variable SERVICE_KEY is empty: the service would be open to all.")


def post_worker_init(worker: Any) -> None:
    """What gunicorn calls when a worker has loaded the server, before its first request."""
    worker.wsgi = check_key(worker.wsgi, os.environ["SERVICE_KEY"])


def check_key(
    server: Callable[..., Iterable[bytes]], key: str
) -> Callable[[dict[str, Any], Callable], Iterable[bytes]]:
    """Put the check before a server; its health, at ``/``, may be asked without a key."""
    expected, refusal = f"Bearer {key}".encode(), json.dumps(REFUSAL).encode()

    def checked(environ: dict[str, Any], start_response: Callable) -> Iterable[bytes]:
        offered = environ.get("HTTP_AUTHORIZATION", "").encode("latin-1")
        if environ["PATH_INFO"] == "/" or hmac.compare_digest(offered, expected):
            return server(environ, start_response)
        for _ in range(256):  # a client listens only when all is sent: let it, up to 256 MiB
            if not environ["wsgi.input"].read(2**20):
                break
        headers = [("Content-Type", "application/json"), ("Content-Length", str(len(refusal)))]
        start_response("401 Unauthorized", [*headers, ("WWW-Authenticate", "Bearer")])
        return [refusal]

    return checked
