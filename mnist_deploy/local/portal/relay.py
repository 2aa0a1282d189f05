"""Sends what the page wants scored on to a service, with a key that the browser never sees."""

from __future__ import annotations

import contextlib
import json
import time
from typing import Any

import requests

from ..core.endpoints import Endpoint

PATIENCE = (5, 120)  # seconds to be let in, and to be answered
ANSWER_LIMIT = 1 << 20  # bytes of an answer that are shown


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
    except OSError as error:  # as all errors of requests are
        return outcome(502, "Bad Gateway", time.monotonic() - start, str(error))
    text = content[:ANSWER_LIMIT].decode("utf-8", "replace")
    seconds = time.monotonic() - start
    return outcome(status, reason, seconds, text) | {"cut": len(content) > ANSWER_LIMIT}


def outcome(status: int, reason: str, seconds: float, body: str) -> dict[str, Any]:
    return {"status": status, "reason": reason, "seconds": seconds, "body": body}


def read_sample(endpoint: Endpoint) -> str | None:
    """The sample input that a service's swagger.json gives, as JSON; None if it has none."""
    with contextlib.suppress(OSError, ValueError, TypeError, LookupError):
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
    with requests.Session() as session:
        session.trust_env = False  # neither proxies nor a .netrc: this is the loopback
        with session.request(
            method,
            endpoint.url + path,
            data=body,
            headers=headers,
            timeout=PATIENCE,
            allow_redirects=False,
            stream=True,
        ) as answer:
            content = answer.raw.read(ANSWER_LIMIT + 1, decode_content=True)
            return answer.status_code, answer.reason, content


def secret_of(endpoint: Endpoint) -> str | None:
    return endpoint.spec.primary_key if endpoint.spec.authentication == "key" else None
