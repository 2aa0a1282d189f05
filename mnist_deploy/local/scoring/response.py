"""From a request to the bytes of its answer, through a WSGI app."""

from __future__ import annotations

import io
import json
import signal
import sys
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus
from typing import Any
from urllib.parse import unquote

from .control_channel import AccessPolicy

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
        key, text = header_name(name), value.decode("latin-1")
        known = self.headers.get(key)
        self.headers[key] = text if known is None else f"{known},{text}"

    def has_all(self) -> None:
        """The body is whole: from now on it can be read."""
        self.body.seek(0)
        self.body.getvalue()  # gives its spare room back, so that read() need not copy
        self.began = time.perf_counter()

    def environ(self, of_connection: Environ) -> Environ:
        return {
            **OF_EVERY_REQUEST,
            **of_connection,
            "REQUEST_METHOD": self.method,
            "PATH_INFO": unquote(self.path, "latin-1") if "%" in self.path else self.path,
            "QUERY_STRING": self.query,
            "RAW_URI": self.target.decode("latin-1"),
            "SERVER_PROTOCOL": f"HTTP/{self.version}",
            "wsgi.input": self.body,
            **{wsgi_name(name): value for name, value in self.headers.items()},
        }


@lru_cache(maxsize=64)  # most requests have the same few
def header_name(sent: bytes) -> str:
    return sent.decode("latin-1").lower()


@lru_cache(maxsize=64)
def wsgi_name(header: str) -> str:
    name = header.upper().replace("-", "_")
    return name if name in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{name}"


class Pieces:
    """The pieces of an answer, which have `timeout_ms` milliseconds for all of them.

    Those of a generator are made here, when ``run()`` has long returned. The server raises
    TimeoutError when SIGALRM comes.
    """

    def __init__(self, pieces: Iterable[bytes], timeout_ms: float) -> None:
        self._pieces = iter(pieces)
        self._left = timeout_ms / 1000
        self.close = getattr(pieces, "close", bool)

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        signal.setitimer(signal.ITIMER_REAL, max(0.001, self._left))
        try:
            return next(self._pieces)
        finally:
            self._left, _ = signal.setitimer(signal.ITIMER_REAL, 0)


def answer(
    app: WsgiApp, request: Request, environ: Environ, timeout_ms: float, access: AccessPolicy
) -> Generator[bytes, None, bytes]:
    """The bytes of the answer of `app`: the last are returned, what comes before is yielded.

    Parameters
    ----------
    access : AccessPolicy
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
