"""Latency of a request while slow clients (slowloris) hold connections open."""

from __future__ import annotations

import socket
import time
from contextlib import ExitStack
from typing import Any
from urllib.parse import urlsplit

import requests

HEAD = b"POST /score HTTP/1.1\r\nHost: localhost\r\n"
SLOW_CLIENTS = {
    "64 unfinished request heads": (64, HEAD),
    "64 unfinished request bodies": (64, HEAD + b"Content-Length: 1000\r\n\r\nthe beginning"),
    "300 silent connections": (300, b""),
}
TRIES = 5
TIMEOUT = 20.0  # seconds


def seconds_beside(uri: str, body: bytes, content_type: str) -> dict[str, float | None]:
    """Return, for each group of slow clients, the maximum latency in seconds of a new request.

    None stands for a request that failed or took longer than `TIMEOUT`.
    """
    measured: dict[str, float | None] = {}
    at = urlsplit(uri)
    for group, (size, opening) in SLOW_CLIENTS.items():
        with ExitStack() as stack:
            for _ in range(size):
                client = stack.enter_context(socket.create_connection((at.hostname, at.port)))
                client.sendall(opening)
            measured[group] = max_latency(
                uri, {"data": body, "headers": {"Content-Type": content_type}}
            )
    return measured


def max_latency(uri: str, sent: dict[str, Any]) -> float | None:
    times = []
    for _ in range(TRIES):
        began = time.perf_counter()
        try:
            requests.post(uri, timeout=TIMEOUT, **sent).raise_for_status()
        except requests.RequestException:
            return None
        times.append(time.perf_counter() - began)
    return max(times)
