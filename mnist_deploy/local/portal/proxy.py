"""Proxies the page's requests to a service, so that the service's key stays on the server."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from http.client import HTTPConnection, HTTPException
from typing import Any
from weakref import WeakKeyDictionary

from ..core.endpoints import Endpoint
from .local_services import LocalService

RESPONSE_TIMEOUT = 120  # seconds without a byte from the service
NOT_READY = "No container of this service is ready yet. The log has the reason."
MAX_SHOWN = 1 << 20  # bytes of a response

tokens: WeakKeyDictionary[Endpoint, tuple[str, float]] = WeakKeyDictionary()  # (token, expiry)
issuing = threading.Lock()


def score(endpoint: Endpoint | LocalService, body: bytes, deployment: str = "") -> dict[str, Any]:
    """Score a JSON body.

    Parameters
    ----------
    deployment : str
        The name of the deployment; by default chosen by the traffic shares.

    Returns
    -------
    dict
        ``status``, ``reason``, ``seconds``, ``body`` as text, and ``cut`` if `body` is incomplete.
        The status is 503 while no container is ready, and 502 if the service cannot be reached.
    """
    requested: list[Any] = [
        each for name, each in list(endpoint.deployments.items()) if deployment in ("", name)
    ]
    if not any(each.containers for each in requested):
        return outcome(503, "Service Unavailable", 0.0, NOT_READY)
    headers = {"Content-Type": "application/json"}
    if deployment:
        headers["azureml-model-deployment"] = deployment
    start = time.monotonic()
    try:
        status, reason, content = send(endpoint, "POST", "/score", headers, body)
    except (OSError, HTTPException) as error:
        return outcome(502, "Bad Gateway", time.monotonic() - start, repr(error))
    text = content[:MAX_SHOWN].decode("utf-8", "replace")
    seconds = time.monotonic() - start
    return outcome(status, reason, seconds, text) | {"cut": len(content) > MAX_SHOWN}


def outcome(status: int, reason: str, seconds: float, body: str) -> dict[str, Any]:
    return {"status": status, "reason": reason, "seconds": seconds, "body": body}


def read_sample(endpoint: Endpoint | LocalService) -> str | None:
    """Return the sample input in a service's swagger.json, as JSON; None without one."""
    with contextlib.suppress(OSError, HTTPException, ValueError, TypeError, LookupError):
        _, _, content = send(endpoint, "GET", "/swagger.json")
        sample = json.loads(content)["definitions"]["ServiceInput"]["example"]
        if sample:  # empty if the script declares no sample
            return json.dumps(sample)
    return None


def send(
    endpoint: Endpoint | LocalService,
    method: str,
    path: str,
    headers: dict[str, str] | None = None,
    body: bytes | None = None,
) -> tuple[int, str, bytes]:
    """Send a request; return status, reason and the beginning of the body."""
    headers = dict(headers or {})
    secret = secret_of(endpoint)
    if secret is not None:
        headers["Authorization"] = f"Bearer {secret}"
    host = endpoint.url.removeprefix("http://")
    with contextlib.closing(HTTPConnection(host, timeout=RESPONSE_TIMEOUT)) as connection:
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        return answer.status, answer.reason, answer.read(MAX_SHOWN + 1)


def secret_of(endpoint: Endpoint | LocalService) -> str | None:
    """Return the key of an endpoint, or a token, which is cached until its last minute."""
    if isinstance(endpoint, LocalService) or endpoint.spec.authentication != "token":
        return endpoint.spec.primary_key if endpoint.spec.authentication == "key" else None
    with issuing:
        token, end = tokens.get(endpoint, ("", 0.0))
        if end < time.time() + 60:
            token, end = tokens[endpoint] = endpoint.issue_token(600)
    return token
