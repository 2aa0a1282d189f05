"""From a request to the bytes of its answer, through a WSGI app."""

from __future__ import annotations

import io
import json
import sys
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus
from typing import Any
from urllib.parse import unquote_to_bytes

from azureml_inference_server_http.server.utils import timeout

from .control import Access

DEPLOYMENT = "azureml-model-deployment"  # header: of an answer; of a request that asks for one

Environ = dict[str, Any]
WsgiApp = Callable[[Environ, Callable[..., Any]], Iterable[bytes]]
Headers = list[tuple[str, str]]

# Of one connection, not of the answer: they are ours to say.
HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "date"}
WITHOUT_BODY = {204, 304}
OF_EVERY_REQUEST: Environ = {
    "SCRIPT_NAME": "",
    "wsgi.version": (1, 0),
    "wsgi.url_scheme": "http",
    "wsgi.errors": sys.stderr,
    "wsgi.multithread": False,
    "wsgi.multiprocess": True,
    "wsgi.run_once": False,
    "wsgi.input_terminated": True,  # the body is whole, also one that came in chunks
}


class Request:
    """One request, as it is read.

    Attributes
    ----------
    head_size : int
        In bytes, roughly.
    size, dropped : int
        Of the body that is kept, and of the one that is not, in bytes.
    refusal : tuple of int and str, or None
        The status and the message of its answer, if it does not reach the script.
    status : int
        Of the answer, once there is one.
    """

    version = "1.1"
    has_head = False
    head_size = 0
    dropped = 0
    keeps_alive = False
    awaits_continue = False
    refusal: tuple[int, str] | None = None
    status = 0

    def __init__(self) -> None:
        self.method = ""
        self.target = b""
        self.path = self.query = ""
        self.headers: dict[str, str] = {}
        self.body = io.BytesIO()
        self.size = 0
        self.began = time.perf_counter()

    def add_header(self, name: bytes, value: bytes) -> None:
        self.head_size += len(name) + len(value) + 4
        if b"_" in name:  # A_B and A-B would be one in WSGI
            return
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        known = self.headers.get(key)
        self.headers[key] = text if known is None else f"{known},{text}"

    def has_all(self) -> None:
        """The body is whole: from now on it can be read."""
        self.body.seek(0)
        self.body.getvalue()  # gives its spare room back, so that read() need not copy
        self.began = time.perf_counter()

    def environ(self, of_connection: Environ) -> Environ:
        environ = {
            **OF_EVERY_REQUEST,
            **of_connection,
            "REQUEST_METHOD": self.method,
            "PATH_INFO": unquote_to_bytes(self.path).decode("latin-1"),
            "QUERY_STRING": self.query,
            "RAW_URI": self.target.decode("latin-1"),
            "SERVER_PROTOCOL": f"HTTP/{self.version}",
            "wsgi.input": self.body,
        }
        for name, value in self.headers.items():
            key = name.upper().replace("-", "_")
            is_content = key in ("CONTENT_TYPE", "CONTENT_LENGTH")
            environ[key if is_content else f"HTTP_{key}"] = value
        return environ


class Pieces:
    """The pieces of an answer, which have `timeout_ms` milliseconds for all of them.

    Those of a generator are made here, when ``run()`` has long returned.
    """

    def __init__(self, pieces: Iterable[bytes], timeout_ms: float) -> None:
        self._pieces = iter(pieces)
        self._left = timeout_ms
        self.close = getattr(pieces, "close", bool)

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        began = time.perf_counter()
        with timeout(max(1, self._left)):  # as Microsoft's server times out run()
            piece = next(self._pieces)
        self._left -= 1000 * (time.perf_counter() - began)
        return piece


def answer(
    app: WsgiApp, request: Request, environ: Environ, timeout_ms: float, access: Access
) -> Generator[bytes, None, bytes]:
    """The bytes of the answer of `app`: the last are returned, what comes before is yielded.

    Parameters
    ----------
    access : Access
        Which deployment answers, and what an online endpoint of Azure makes of its errors.

    Raises
    ------
    TimeoutError
        The pieces of the answer took too long.
    ValueError
        It is not as long as it was said to be.
    """
    started: tuple[str, Headers] = "", []

    def start_response(status: str, headers: Headers, exc_info: Any = None) -> None:
        nonlocal started
        started = status, headers

    pieces = Pieces(app(environ, start_response), timeout_ms)
    try:
        first = next(pieces, b"")
        line, headers = started
        request.status = int(line[:3])
        if access.deployment:
            headers = [*headers, (DEPLOYMENT, access.deployment)]
        if access.model_error and request.status >= 400:
            headers = [*headers, ("azureml-model-error-statuscode", line[:3]),
                       ("azureml-model-error-reason", "model_error")]  # fmt: skip
            request.status, line = access.model_error, status_line(access.model_error)
        if request.method == "HEAD" or request.status in WITHOUT_BODY:
            return head(request, line, headers)
        length = next((int(v) for name, v in headers if name.lower() == "content-length"), None)
        if length == len(first):
            return head(request, line, headers) + first
        frame: Callable[[bytes], bytes] = bytes
        if length is None and request.version == "1.0":
            request.keeps_alive = False  # the end of the connection is that of the answer
        elif length is None:
            frame = chunk
        sent = len(first)
        beginning = head(request, line, headers, is_chunked=frame is chunk)
        yield beginning + (frame(first) if first else b"")
        for piece in filter(None, pieces):
            sent += len(piece)
            yield frame(piece)
        if length not in (None, sent):
            raise ValueError(f"the answer has {sent} bytes, and said {length}")
        return frame(b"")
    finally:
        pieces.close()


def chunk(piece: bytes) -> bytes:
    """A chunk of that transfer encoding; that of no bytes ends the answer."""
    return b"%x\r\n%b\r\n" % (len(piece), piece)


def refuse(request: Request, status: int, message: str, headers: Headers | None = None) -> bytes:
    """The answer to a request that does not reach the script, in the form of Microsoft's."""
    request.status = status
    body = json.dumps({"message": message}).encode()
    form = [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
    whole = head(request, status_line(status), form + (headers or []))
    return whole if request.method == "HEAD" else whole + body


def head(request: Request, line: str, headers: Headers, *, is_chunked: bool = False) -> bytes:
    lines = [f"HTTP/1.1 {line}", date(int(time.time()))]
    lines += [f"{name}: {v}" for name, v in headers if name.lower() not in HOP_BY_HOP]
    if is_chunked:
        lines.append("Transfer-Encoding: chunked")
    if not request.keeps_alive:
        lines.append("Connection: close")
    elif request.version == "1.0":
        lines.append("Connection: keep-alive")
    return "\r\n".join([*lines, "\r\n"]).encode("latin-1")


def status_line(status: int) -> str:
    return f"{status} {HTTPStatus(status).phrase}"


@lru_cache(maxsize=1)
def date(second: int) -> str:
    return f"Date: {formatdate(second, usegmt=True)}"
