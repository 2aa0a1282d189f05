"""Sends what the page wants scored on to a service, with a key that the browser never sees."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from http.client import HTTPConnection, HTTPException
from typing import Any
from weakref import WeakKeyDictionary

from ..core.endpoints import Endpoint

PATIENCE = 120  # seconds between two fallback of life of a service
ANSWER_LIMIT = 1 << 20  # bytes of an answer that are shown

tokens: WeakKeyDictionary[Endpoint, tuple[str, float]] = WeakKeyDictionary()  # and their ends
issuing = threading.Lock()


def score(endpoint: Endpoint, body: bytes, deployment: str = "") -> dict[str, Any]:
    """Score a JSON body.

    Parameters
    ----------
    deployment : str
        The only one to ask; by default the traffic's shares decide.

    Returns
    -------
    dict
        ``status``, ``reason``, ``seconds``, ``body`` as text, and ``cut`` if it goes on after
        that. A service that cannot be reached is a 502.
    """
    headers = {"Content-Type": "application/json"}
    if deployment:
        headers["azureml-model-deployment"] = deployment
    start = time.monotonic()
    try:
        status, reason, content = send(endpoint, "POST", "/score", headers, body)
    except (OSError, HTTPException) as error:
        return outcome(502, "Bad Gateway", time.monotonic() - start, repr(error))
    text = content[:ANSWER_LIMIT].decode("utf-8", "replace")
    seconds = time.monotonic() - start
    return outcome(status, reason, seconds, text) | {"cut": len(content) > ANSWER_LIMIT}


def outcome(status: int, reason: str, seconds: float, body: str) -> dict[str, Any]:
    return {"status": status, "reason": reason, "seconds": seconds, "body": body}


def read_sample(endpoint: Endpoint) -> str | None:
    """The sample input that a service's swagger.json gives, as JSON; None if it has none."""
    with contextlib.suppress(OSError, HTTPException, ValueError, TypeError, LookupError):
        _, _, content = send(endpoint, "GET", "/swagger.json")
        sample = json.loads(content)["definitions"]["ServiceInput"]["example"]
        if sample:  # empty where the script declares nothing
            return json.dumps(sample)
    return None


def send(
    endpoint: Endpoint,
    method: str,
    path: str,
    headers: dict[str, str] | None = None,
    body: bytes | None = None,
) -> tuple[int, str, bytes]:
    """Status, reason and the beginning of the answer's body."""
    headers = dict(headers or {})
    secret = secret_of(endpoint)
    if secret is not None:
        headers["Authorization"] = f"Bearer {secret}"
    host = endpoint.url.removeprefix("http://")
    with contextlib.closing(HTTPConnection(host, timeout=PATIENCE)) as connection:
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        return answer.status, answer.reason, answer.read(ANSWER_LIMIT + 1)


def secret_of(endpoint: Endpoint) -> str | None:
    """What opens an endpoint; a token is used again until its last minute."""
    if endpoint.spec.authentication != "token":
        return endpoint.spec.primary_key if endpoint.spec.authentication == "key" else None
    with issuing:
        token, end = tokens.get(endpoint, ("", 0.0))
        if end < time.time() + 60:
            token, end = tokens[endpoint] = endpoint.issue_token(600)
    return token
