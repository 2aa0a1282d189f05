"""Send scoring requests to one URI: authorization, retries, time-outs.

`status_codes` maps responses other than 200 to exceptions.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from urllib.parse import urlsplit

import requests
from requests.exceptions import ChunkedEncodingError, SSLError
from urllib3.exceptions import ReadTimeoutError

from ..errors import ScoringError, ScoringTimeout, ServiceUnavailable
from .status_codes import build_scoring_error

MAX_BACKOFF = 2.0  # seconds between two attempts
CONNECT_TIMEOUT = 10.0  # seconds
_TOO_MANY_REQUESTS = 429
_RETRYABLE = (requests.ConnectionError, requests.Timeout, ChunkedEncodingError)


class ScoringConnection:
    """A scoring URI and the session whose connection is kept open for it.

    Parameters
    ----------
    session : requests.Session
    uri : str
    timeout : float
        Seconds to wait for the response to one request.
    retry_timeout : float
        Seconds to retry while the connection is refused or breaks, or the response is 429.
    """

    def __init__(
        self, session: requests.Session, uri: str, *, timeout: float, retry_timeout: float
    ) -> None:
        _check_seconds("timeout", timeout, lowest=1e-3)
        _check_seconds("retry_timeout", retry_timeout, lowest=0)
        self.uri = uri
        self._session = session
        self._session.auth = lambda request: request  # requests would send the key of a .netrc
        # A proxy of the environment cannot reach the loopback interface of this machine.
        is_loopback = urlsplit(uri).hostname in ("127.0.0.1", "localhost", "::1")
        self._proxies = {"http": "", "https": "", "all": ""} if is_loopback else None
        self._renew_key: Callable[[], str] | None = None
        self._timeout = timeout
        self._retry_timeout = retry_timeout

    def use_key(self, key: str, *, renew: Callable[[], str] | None = None) -> None:
        """Send a key with each request; after a 401, retry once with the key of `renew`."""
        self._session.auth = _bearer(key)
        self._renew_key = renew

    def post(self, body: bytes, content_type: str) -> bytes:
        """Send one request and return the body of its response, or raise a `ScoringError`."""
        response = self._send(body, content_type)
        if response.status_code == 401 and self._renew_key is not None:
            self.use_key(self._renew_key())
            response = self._send(body, content_type)
        if response.status_code != 200:
            raise build_scoring_error(self.uri, response)
        return response.content

    def _send(self, body: bytes, content_type: str) -> requests.Response:
        """Send until there is a response other than 429: scoring has no side effects."""
        deadline = time.monotonic() + self._retry_timeout
        for attempt in itertools.count():
            backoff = min(0.1 * 2**attempt, MAX_BACKOFF)
            try:
                response = self._session.post(
                    self.uri,
                    data=body,
                    headers={"Content-Type": content_type},
                    timeout=(min(self._timeout, CONNECT_TIMEOUT), self._timeout),
                    allow_redirects=False,
                    proxies=self._proxies,
                )
            except _RETRYABLE as error:
                can_retry = time.monotonic() + backoff < deadline
                if _is_timeout(error) or isinstance(error, SSLError) or not can_retry:
                    failure = self._failure(error)
                    break
            else:
                backoff = max(backoff, _retry_after(response))
                is_over = time.monotonic() + backoff > deadline
                if response.status_code != _TOO_MANY_REQUESTS or is_over:
                    return response
            time.sleep(backoff)
        raise failure  # outside of the handler: requests' exception holds the request with its key

    def _failure(self, error: requests.RequestException) -> ScoringError:
        if _is_timeout(error):
            return ScoringTimeout(
                f"{self.uri} did not respond within {self._timeout:g} seconds. Send smaller "
                "batches (batch_size), wait longer (timeout), or read service.get_logs() to see "
                "what the service is doing."
            )
        cause = getattr(error.args[0], "reason", error) if error.args else error
        return ServiceUnavailable(
            f"{self.uri} could not be reached for {self._retry_timeout:g} seconds: {cause}. "
            "Check that the service is deployed, and that its state is Healthy."
        )


def _check_seconds(name: str, value: float, lowest: float) -> None:
    if not lowest <= value < 1e9:  # NaN and infinity are outside as well
        raise ValueError(
            f"{name} is {value!r}; expected a finite number of seconds, at least {lowest:g}."
        )


def _bearer(key: str) -> Callable[[requests.PreparedRequest], requests.PreparedRequest]:
    """Return a callable that adds the key to a request; neither repr nor error shows the key."""
    key = key.strip()
    if not (key.isascii() and key.isprintable()):
        raise ValueError(
            "api_key has characters that an HTTP header cannot hold; expected printable ASCII. "
            "Pass a key of service.get_keys()."
        )

    def authorize(request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {key}"
        return request

    return authorize


def _is_timeout(error: requests.RequestException) -> bool:
    """Whether the request timed out; requests reports this within a body as ConnectionError."""
    cause = error.args[0] if error.args else None
    return isinstance(error, requests.Timeout) or isinstance(cause, ReadTimeoutError)


def _retry_after(response: requests.Response) -> float:
    """The seconds of the header ``Retry-After``; 0 without it, or if it holds a date."""
    value = response.headers.get("Retry-After", "")
    return float(value) if value.isdecimal() else 0.0
