"""How long the next answer takes while others hold connections open and do not get on."""

from __future__ import annotations

import socket
import time
from contextlib import ExitStack
from typing import Any
from urllib.parse import urlsplit

import requests

HEAD = b"POST /score HTTP/1.1\r\nHost: localhost\r\n"
CROWDS = {
    "64 half-sent heads": (64, HEAD),
    "64 half-sent bodies": (64, HEAD + b"Content-Length: 1000\r\n\r\nthe beginning"),
    "300 silent connections": (300, b""),
}
TRIES = 5
LIMIT = 20.0  # seconds: it may be never


def seconds_beside(uri: str, body: bytes, content_type: str) -> dict[str, float | None]:
    """For each crowd the longest that a request over a new connection took; None: too long."""
    measured: dict[str, float | None] = {}
    at = urlsplit(uri)
    for crowd, (size, opening) in CROWDS.items():
        with ExitStack() as stack:
            for _ in range(size):
                client = stack.enter_context(socket.create_connection((at.hostname, at.port)))
                client.sendall(opening)
            measured[crowd] = longest(
                uri, {"data": body, "headers": {"Content-Type": content_type}}
            )
    return measured


def longest(uri: str, sent: dict[str, Any]) -> float | None:
    times = []
    for _ in range(TRIES):
        began = time.perf_counter()
        try:
            requests.post(uri, timeout=LIMIT, **sent).raise_for_status()
        except requests.RequestException:
            return None
        times.append(time.perf_counter() - began)
    return max(times)
