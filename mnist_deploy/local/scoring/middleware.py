"""What stands between a request and the script: its whole body, a key, one at a time.

WSGI middlewares around Microsoft's inference server, which has none of these.
"""

from __future__ import annotations

import hmac
import json
import os
import threading
import time
from collections.abc import Callable, Iterable
from io import BytesIO
from pathlib import Path
from typing import Any

Environ = dict[str, Any]
StartResponse = Callable[..., Any]
WsgiApp = Callable[[Environ, StartResponse], Iterable[bytes]]

BODY_LIMIT = 256 << 20  # bytes
SILENCE_LIMIT = 30  # seconds


class KeyCheck:
    """Lets a request through if it carries one of the service's keys, or if keys are off.

    Parameters
    ----------
    app : WSGI callable
    keys_file : Path
        JSON: a list of keys, or null where keys are off. Read again when it changes,
        so that a regenerated key counts at once.
    """

    def __init__(self, app: WsgiApp, keys_file: Path) -> None:
        self._app = app
        self._keys_file = keys_file
        self._read: tuple[int, int] | None = None
        self._keys: list[bytes] | None = []

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        if environ["PATH_INFO"] == "/" or self._is_allowed(environ.get("HTTP_AUTHORIZATION", "")):
            return self._app(environ, start_response)
        return refuse(
            start_response,
            "401 Unauthorized",
            "This service asks for a key: send the header 'Authorization: Bearer <key>' with "
            "the primary or secondary key, which service.get_keys() returns.",
        )

    def _is_allowed(self, authorization: str) -> bool:
        status = os.stat(self._keys_file)
        if (status.st_mtime_ns, status.st_ino) != self._read:
            keys = json.loads(self._keys_file.read_bytes())
            self._keys = None if keys is None else [key.encode() for key in keys]
            self._read = status.st_mtime_ns, status.st_ino
        if self._keys is None:
            return True
        offered = authorization.removeprefix("Bearer ").encode("latin-1")
        # Every key is compared, whatever the first comparison gave.
        return any([hmac.compare_digest(offered, key) for key in self._keys])


class WholeBody:
    """Lets a request through when its body has arrived: a slow sender keeps nobody waiting.

    It comes before the key check, because who is refused while still sending would see a
    broken connection instead of the reason.
    """

    def __init__(self, app: WsgiApp) -> None:
        self._app = app

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        try:
            environ["wsgi.input"] = BytesIO(read_body(environ))
        except OverflowError as error:
            return refuse(start_response, "413 Content Too Large", str(error))
        except TimeoutError as error:
            return refuse(start_response, "408 Request Timeout", str(error))
        return self._app(environ, start_response)


class Turnstile:
    """Gives the script one request at a time, and no longer than the scoring time-out.

    Microsoft's server runs a script in a single thread and times it out by a signal. gunicorn's
    threaded worker keeps connections open, but its threads know no signals: when the time is
    up, the caller gets the answer that Microsoft's server would have given, and the worker is
    ended and started anew.
    """

    def __init__(self, app: WsgiApp, seconds: float) -> None:
        self._app = app
        self._seconds = seconds
        self._turn = threading.Lock()
        self._answering = threading.Lock()  # held by who may answer: the script, or the watch
        self._running: tuple[float, Any] | None = None

    def watch(self) -> None:
        threading.Thread(target=self._watch, daemon=True, name="deadline").start()

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        with self._turn:
            self._running = time.monotonic(), environ.get("gunicorn.socket")
            try:
                return self._app(environ, start_response)
            finally:
                with self._answering:
                    self._running = None

    def _watch(self) -> None:
        while True:
            time.sleep(min(0.25, self._seconds / 4))
            with self._answering:
                running = self._running
                if running is not None and time.monotonic() - running[0] > self._seconds:
                    self._give_up(running[1])

    def _give_up(self, socket: Any) -> None:
        message = f"Scoring timeout after {self._seconds * 1000:.0f} ms"
        print(f"{message}: run() did not return; the worker is restarted.", flush=True)
        body = json.dumps({"message": message}).encode()
        head = (
            "HTTP/1.1 500 Internal Server Error\r\nContent-Type: application/json\r\n"
            "Connection: close\r\nx-ms-run-function-failed: True\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        try:
            socket.sendall(head.encode() + body)
        finally:
            os._exit(1)


def read_body(environ: Environ) -> bytes:
    """The request's whole body.

    Raises
    ------
    OverflowError
        If it is larger than `BODY_LIMIT`.
    TimeoutError
        If its sender is silent for `SILENCE_LIMIT` seconds.
    """
    socket = environ.get("gunicorn.socket")
    announced = environ.get("CONTENT_LENGTH") or ""
    if announced.isdigit() and int(announced) > BODY_LIMIT:
        raise OverflowError(f"The body is larger than {BODY_LIMIT} bytes. Send smaller batches.")
    if socket is not None:
        socket.settimeout(SILENCE_LIMIT)
    try:
        body = environ["wsgi.input"].read(BODY_LIMIT + 1)
    except TimeoutError:
        raise TimeoutError(f"The rest of the body did not come in {SILENCE_LIMIT} s.") from None
    if socket is not None:
        socket.settimeout(None)
    if len(body) > BODY_LIMIT:
        raise OverflowError(f"The body is larger than {BODY_LIMIT} bytes. Send smaller batches.")
    return body


def refuse(start_response: StartResponse, status: str, message: str) -> list[bytes]:
    body = json.dumps({"message": message}).encode()
    headers = [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
    start_response(status, headers)
    return [body]
