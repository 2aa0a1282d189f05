"""HTTP without a network: what is sent to the addresses of a mocked workspace."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from urllib3 import HTTPResponse

from .services import SCORING_HOST

CONTROL_HOST = "mocked.invalid"

Answered = tuple[int, bytes, dict[str, str]]  # status, body, headers


def is_mocked(url: str) -> bool:
    """Whether a URL belongs to a mocked workspace or to one of its services."""
    host = urlsplit(url).hostname or ""
    return host == CONTROL_HOST or host.endswith(SCORING_HOST)


class InMemoryAdapter(HTTPAdapter):
    """Hands a request to a function, and returns its answer as the response.

    Parameters
    ----------
    answer : callable
        What it raises from `requests` reaches the caller as a failure of the connection.
    """

    def __init__(self, answer: Callable[[requests.PreparedRequest], Answered]) -> None:
        super().__init__()
        self._answer = answer

    def send(self, request: requests.PreparedRequest, *_: Any, **__: Any) -> requests.Response:
        status, body, headers = self._answer(request)
        content = HTTPResponse(io.BytesIO(body), headers, status, preload_content=False)
        return self.build_response(request, content)
