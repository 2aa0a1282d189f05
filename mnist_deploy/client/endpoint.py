"""One scoring URI: requests sent, tried again where that is safe, and answers told apart."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from urllib.parse import urlsplit

import orjson
import requests
from requests.exceptions import ChunkedEncodingError, SSLError
from urllib3.exceptions import ReadTimeoutError

from ..errors import (
    AuthenticationFailed,
    InputRejected,
    PayloadTooLarge,
    ScoringError,
    ScoringTimeout,
    ScriptFailed,
    ServiceUnavailable,
)
from .payload import excerpt

_LONGEST_PAUSE = 2.0  # seconds between two tries
_LONGEST_CONNECT = 10.0  # seconds


class Endpoint:
    """Where a service is scored: over a session's connection, which is kept open.

    ``timeout`` are the seconds to wait for an answer, ``patience`` those to try again while the
    connection is refused or breaks.
    """

    def __init__(
        self, session: requests.Session, uri: str, *, timeout: float, patience: float
    ) -> None:
        self.uri = uri
        self._session = session
        self._session.auth = lambda request: request  # or the key of a .netrc is sent
        # The environment's proxies cannot reach this machine's loopback.
        is_here = urlsplit(uri).hostname in ("127.0.0.1", "localhost", "::1")
        self._proxies = {"http": "", "https": "", "all": ""} if is_here else None
        self._renew_key: Callable[[], str] | None = None
        self._timeout = timeout
        self._patience = patience

    def use_key(self, key: str, *, renew: Callable[[], str] | None = None) -> None:
        """Send a key with each request; if it is refused, once another that ``renew`` fetches."""
        self._session.auth = _bearer(key)
        self._renew_key = renew

    def post(self, body: bytes, content_type: str) -> bytes:
        """Send one request and return the body of its answer; what goes wrong is a ScoringError."""
        response = self._send(body, content_type)
        if response.status_code == 401 and self._renew_key is not None:
            self.use_key(self._renew_key())
            response = self._send(body, content_type)
        if response.status_code != 200:
            raise self._error(response)
        return response.content

    def _send(self, body: bytes, content_type: str) -> requests.Response:
        """Send until something is answered: scoring changes nothing, so a repeat is safe."""
        give_up_at = time.monotonic() + self._patience
        for attempt in itertools.count():
            try:
                return self._session.post(
                    self.uri,
                    data=body,
                    headers={"Content-Type": content_type},
                    timeout=(min(self._timeout, _LONGEST_CONNECT), self._timeout),
                    allow_redirects=False,
                    proxies=self._proxies,
                )
            except (requests.ConnectionError, requests.Timeout, ChunkedEncodingError) as error:
                if _is_timeout(error):
                    failure: ScoringError = ScoringTimeout(
                        f"{self.uri} did not answer within {self._timeout:g} seconds. Send smaller "
                        "batches (batch_size), wait longer (timeout), or see what the service is "
                        "doing with service.get_logs()."
                    )
                    break
                pause = min(0.1 * 2**attempt, _LONGEST_PAUSE)
                if isinstance(error, SSLError) or time.monotonic() + pause > give_up_at:
                    why = getattr(error.args[0], "reason", error) if error.args else error
                    failure = ServiceUnavailable(
                        f"nobody answered at {self.uri} for {self._patience:g} seconds: {why}. "
                        "Is the service deployed, and its state Healthy?"
                    )
                    break
                time.sleep(pause)
        raise failure  # outside of the handler: the library's error holds the request, with its key

    def _error(self, response: requests.Response) -> ScoringError:
        status = response.status_code
        said = f"{self.uri} answered {status}: {_message(response).rstrip('.')}"
        if status == 424:  # an online endpoint's word for whatever its script has answered
            script = response.headers.get("azureml-model-error-statuscode", "")
            status = int(script) if script.isdecimal() else 500
        for statuses, error, advice in _ERRORS:
            if status in statuses:
                return error(f"{said}. {advice}", status=status)
        if 400 <= status < 500:
            return InputRejected(f"{said}.", status=status)
        return ScoringError(f"{said}. Is this the scoring URI of a service?", status=status)


_ERRORS: list[tuple[tuple[int, ...], type[ScoringError], str]] = [
    (
        (401, 403),
        AuthenticationFailed,
        "Pass the primary or secondary key of service.get_keys() as api_key, or let call_service "
        "fetch it.",
    ),
    ((413,), PayloadTooLarge, "Send fewer images in one request: a smaller batch_size."),
    ((429, 502, 503, 504), ServiceUnavailable, "Try again when the service's state is Healthy."),
    ((500,), ScriptFailed, "run() of the scoring script failed: service.get_logs() says where."),
]


def _bearer(key: str) -> Callable[[requests.PreparedRequest], requests.PreparedRequest]:
    """What puts a key into each request, and keeps it where no repr and no error shows it."""
    key = key.strip()
    if not (key.isascii() and key.isprintable()):
        raise ValueError("api_key has characters that no HTTP header may hold.")

    def authorize(request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {key}"
        return request

    return authorize


def _is_timeout(error: requests.RequestException) -> bool:
    """Also if time ran out within the answer, which requests calls a ConnectionError."""
    cause = error.args[0] if error.args else None
    return isinstance(error, requests.Timeout) or isinstance(cause, ReadTimeoutError)


def _message(response: requests.Response) -> str:
    try:
        return str(orjson.loads(response.content)["message"])
    except (orjson.JSONDecodeError, TypeError, KeyError):
        return excerpt(response.content)
