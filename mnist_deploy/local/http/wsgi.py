"""Calls a WSGI app for a request, and encodes the answer of the app."""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator, Iterable, Iterator
from functools import lru_cache
from typing import Any
from urllib.parse import unquote

from .message import (
    STATUSES_WITHOUT_BODY,
    Request,
    encode_chunk,
    response_head,
)

Environ = dict[str, Any]
HeaderList = list[tuple[str, str]]
WsgiApp = Callable[[Environ, Callable[..., Any]], Iterable[bytes]]

COMMON: Environ = {
    "SCRIPT_NAME": "",
    "wsgi.version": (1, 0),
    "wsgi.url_scheme": "http",
    "wsgi.errors": sys.stderr,
    "wsgi.multithread": False,
    "wsgi.multiprocess": True,
    "wsgi.run_once": False,
    "wsgi.input_terminated": True,  # the body is complete, also with chunked transfer encoding
}


def make_environ(request: Request, of_connection: Environ) -> Environ:
    return {
        **COMMON,
        **of_connection,
        "REQUEST_METHOD": request.method,
        "PATH_INFO": unquote(request.path, "latin-1") if "%" in request.path else request.path,
        "QUERY_STRING": request.query,
        "RAW_URI": request.target.decode("latin-1"),
        "SERVER_PROTOCOL": f"HTTP/{request.version}",
        "wsgi.input": request.body,
        **{wsgi_name(name): value for name, value in request.headers.items()},
    }


@lru_cache(maxsize=64)
def wsgi_name(header: str) -> str:
    name = header.upper().replace("-", "_")
    return name if name in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{name}"


def call_app(
    app: WsgiApp,
    request: Request,
    environ: Environ,
    guard: Callable[[Iterable[bytes]], Iterator[bytes]] = iter,
) -> Generator[bytes, None, bytes]:
    """Call `app` and encode its answer, one part for each piece that the app yields.

    Parameters
    ----------
    guard : callable
        Returns an iterator over the pieces of the app's answer, for example with a time limit.

    Yields
    ------
    bytes
        All parts except the last, which is the generator's return value. An answer of one piece
        with known length, as most are, is a single part.

    Raises
    ------
    ValueError
        The answer is not as long as its Content-Length.
    """
    started: tuple[str, HeaderList] = "", []

    def start_response(status: str, headers: HeaderList, exc_info: Any = None) -> None:
        nonlocal started
        started = status, headers

    answer = app(environ, start_response)
    try:
        pieces = guard(answer)
        first = next(pieces, b"")  # an app may call start_response before its first piece only
        line, headers = started
        request.status = int(line[:3])
        if request.method == "HEAD" or request.status in STATUSES_WITHOUT_BODY:
            return response_head(request, line, headers)
        length = declared_length(headers)
        if length == len(first):
            return response_head(request, line, headers) + first
        if length is None and request.version != "1.0":
            yield response_head(request, line, headers, is_chunked=True)
            return (yield from chunked(first, pieces))
        if length is None:
            request.keeps_alive = False  # the end of the connection marks the end of the answer
        yield response_head(request, line, headers) + first
        return (yield from counted(len(first), pieces, length))
    finally:
        close = getattr(answer, "close", None)
        if close is not None:
            close()


def declared_length(headers: HeaderList) -> int | None:
    for name, value in headers:
        if name.lower() == "content-length":
            return int(value)
    return None


def chunked(first: bytes, pieces: Iterator[bytes]) -> Generator[bytes, None, bytes]:
    if first:
        yield encode_chunk(first)
    for piece in filter(None, pieces):
        yield encode_chunk(piece)
    return encode_chunk(b"")


def counted(
    sent: int, pieces: Iterator[bytes], length: int | None
) -> Generator[bytes, None, bytes]:
    for piece in filter(None, pieces):
        sent += len(piece)
        yield piece
    if length not in (None, sent):
        raise ValueError(f"The answer has {sent} bytes, but its Content-Length is {length}.")
    return b""
