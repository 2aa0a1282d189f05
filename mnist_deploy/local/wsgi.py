"""Calls a WSGI app in a thread for a request that an event loop has received.

The thread reads the body and writes the response piece by piece through the event loop, so that no
large upload or download is in memory as a whole.
"""

from __future__ import annotations

import asyncio
import io
import logging
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any
from urllib.parse import unquote

from aiohttp import ClientError, web
from werkzeug.wsgi import FileWrapper

WsgiApp = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]

PIECE_TIMEOUT = 60.0  # seconds until the client sends or receives the next piece of a body
MAX_WHOLE = 1 << 20  # bytes of a response that is sent at once, not in pieces
FILE_PIECE = 1 << 18  # bytes that are read from a file at once
HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding"}

log = logging.getLogger(__name__)


class RequestStream(io.RawIOBase):
    """The body of a request as a file: a thread reads, the event loop receives.

    Raises ConnectionError from `read` where the sender stops in the middle of the body.
    """

    def __init__(self, request: web.BaseRequest, loop: asyncio.AbstractEventLoop) -> None:
        self._content = request.content
        self._loop = loop
        self._piece = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._piece:
            self._piece = memoryview(in_loop(self._loop, self._receive()))
        size = min(len(buffer), len(self._piece))
        buffer[:size] = self._piece[:size]
        self._piece = self._piece[size:]
        return size

    async def _receive(self) -> bytes:
        return await asyncio.wait_for(self._content.readany(), PIECE_TIMEOUT)


def in_loop(loop: asyncio.AbstractEventLoop, coroutine: Any) -> Any:
    """Run a coroutine on the event loop from another thread, and wait for its result."""
    try:
        return asyncio.run_coroutine_threadsafe(coroutine, loop).result()
    except (ClientError, TimeoutError) as error:
        raise ConnectionError(f"The client does not send or receive any more: {error!r}") from error


def build_environ(request: web.BaseRequest, body: io.IOBase) -> dict[str, Any]:
    """The WSGI environment of a request."""
    path, _, query = split_target(request.raw_path)
    host, _, port = (request.headers.get("Host") or "127.0.0.1").partition(":")
    environ = {
        "REQUEST_METHOD": request.method,
        "SCRIPT_NAME": "",
        "PATH_INFO": unquote(path, "latin-1"),
        "QUERY_STRING": query,
        "RAW_URI": request.raw_path,
        "REQUEST_URI": request.raw_path,
        "SERVER_NAME": host,
        "SERVER_PORT": port or "80",
        "SERVER_PROTOCOL": f"HTTP/{request.version.major}.{request.version.minor}",
        "REMOTE_ADDR": request.remote or "",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "https" if request.secure else "http",
        "wsgi.input": body,
        "wsgi.input_terminated": True,  # the end of a chunked body is the end of the file
        "wsgi.errors": sys.stderr,
        "wsgi.file_wrapper": lambda file, _: FileWrapper(file, FILE_PIECE),
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
    }
    for name in set(request.headers):
        if "_" in name:  # A_B and A-B would be the same name in WSGI
            continue
        key = name.upper().replace("-", "_")
        key = key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{key}"
        environ[key] = ",".join(request.headers.getall(name))
    return environ


def split_target(target: str) -> tuple[str, str, str]:
    """Path, separator and query of a request's target, which may begin with scheme and host."""
    if not target.startswith("/"):
        _, _, rest = target.partition("://")
        target = f"/{rest.partition('/')[2]}"
    return target.partition("?")


class AppCall:
    """One call of a WSGI app, in a thread.

    Parameters
    ----------
    app : WSGI app
    request : aiohttp.web.BaseRequest
    loop : asyncio.AbstractEventLoop
        The event loop that the request was received on.
    """

    def __init__(
        self, app: WsgiApp, request: web.BaseRequest, loop: asyncio.AbstractEventLoop
    ) -> None:
        self._app = app
        self._request = request
        self._loop = loop
        self._status = ""
        self._headers: list[tuple[str, str]] = []

    def run(self, body: io.IOBase) -> web.StreamResponse:
        """Call the app and return the response; a large response is sent before the return."""
        transport = self._request.transport
        try:
            pieces = self._app(build_environ(self._request, body), self._start_response)
            try:
                return self._send(iter(pieces))
            finally:
                getattr(pieces, "close", bool)()
        except Exception as error:
            if not isinstance(error, ConnectionError):
                log.exception("no response to %s %s", self._request.method, self._request.raw_path)
            # An incomplete response must not look complete.
            if transport is not None:
                self._loop.call_soon_threadsafe(transport.abort)
            return web.Response(status=500)

    def _start_response(self, status: str, headers: list, exc_info: Any = None) -> None:
        self._status, self._headers = status, headers

    def _send(self, pieces: Iterator[bytes]) -> web.StreamResponse:
        beginning, size = [], 0
        for piece in pieces:
            beginning.append(piece)
            size += len(piece)
            if size > MAX_WHOLE or self._is_unbuffered:
                break
        else:
            return self._make_response(web.Response, body=b"".join(beginning))
        response = self._make_response(web.StreamResponse)
        in_loop(self._loop, self._write(response, b"".join(beginning)))
        for piece in filter(None, pieces):
            in_loop(self._loop, self._write(response, piece))
        return response

    @property
    def _is_unbuffered(self) -> bool:
        """Whether the app requests by a header that each piece is sent at once."""
        return ("x-accel-buffering", "no") in [
            (name.lower(), value) for name, value in self._headers
        ]

    def _make_response(self, kind: Any, **arguments: Any) -> Any:
        status, _, reason = self._status.partition(" ")
        response = kind(status=int(status), reason=reason, **arguments)
        response.headers["Server"] = "mnist_deploy"
        for name, value in self._headers:
            if name.lower() == "content-type":
                response.headers[name] = value
            elif name.lower() not in HOP_BY_HOP:
                response.headers.add(name, value)
        return response

    async def _write(self, response: web.StreamResponse, piece: bytes) -> None:
        if not response.prepared:
            await response.prepare(self._request)
        await asyncio.wait_for(response.write(piece), PIECE_TIMEOUT)
