"""Requests, as they are read, and the encoding of answers."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Iterable
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus
from typing import Any

Headers = Iterable[tuple[str, str]]

# Headers that apply to one connection, and are not forwarded.
HOP_BY_HOP = frozenset(
    {"connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding",
     "upgrade"}
)  # fmt: skip
ROUTER_SECRET = "x-mnist-deploy-router"  # request header: see `add_secret` of core/backend.py
OWN_HEADERS = HOP_BY_HOP | {"date"}
STATUSES_WITHOUT_BODY = frozenset({204, 304})


class Request:
    """One request, as it is read.

    Attributes
    ----------
    head_size : int
        Bytes of the target and of the parsed headers.
    unparsed_size : int
        Bytes of the reads in which the head has not ended.
    size, dropped : int
        Bytes of the body in memory, and bytes of the body that were discarded.
    rejection : tuple of int and str, or None
        The status and the message of the answer to a request that the application does not get.
    status : int
        The status of the answer; 0 before the answer.
    context : object
        Data of the server about the request.
    """

    version = "1.1"
    has_head = False
    head_size = 0
    unparsed_size = 0
    dropped = 0
    keeps_alive = False
    awaits_continue = False
    rejection: tuple[int, str] | None = None
    status = 0
    context: Any = None

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
        if b"_" in name:  # A_B and A-B are the same name in WSGI
            return
        key, text = lower_name(name), value.decode("latin-1")
        known = self.headers.get(key)
        self.headers[key] = text if known is None else f"{known},{text}"

    def complete(self) -> None:
        """Prepare the body for reading, after all of it has arrived."""
        self.body.seek(0)
        self.body.getvalue()  # releases spare memory, so that read() need not copy
        self.began = time.perf_counter()


@lru_cache(maxsize=64)  # most requests have the same headers
def lower_name(sent: bytes) -> str:
    return sent.decode("latin-1").lower()


def error_response(request: Request, status: int, message: str, headers: Headers = ()) -> bytes:
    """The answer to a request that the application does not get: ``{"message": message}``."""
    request.status = status
    body = json.dumps({"message": message}).encode()
    own = [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
    head = response_head(request, status_line(status), [*own, *headers])
    return head if request.method == "HEAD" else head + body


def response_head(
    request: Request, line: str, headers: Headers, *, is_chunked: bool = False
) -> bytes:
    """The head of an answer; `line` has status and reason, for instance ``200 OK``."""
    lines = [f"HTTP/1.1 {line}", date_header(int(time.time()))]
    lines += [f"{name}: {value}" for name, value in headers if name.lower() not in OWN_HEADERS]
    if is_chunked:
        lines.append("Transfer-Encoding: chunked")
    if not request.keeps_alive:
        lines.append("Connection: close")
    elif request.version == "1.0":
        lines.append("Connection: keep-alive")
    return "\r\n".join([*lines, "\r\n"]).encode("latin-1")


def encode_chunk(piece: bytes) -> bytes:
    """A piece in the chunked transfer encoding; an empty piece ends the answer."""
    return b"%x\r\n%b\r\n" % (len(piece), piece)


def status_line(status: int) -> str:
    return f"{status} {HTTPStatus(status).phrase}"


@lru_cache(maxsize=1)
def date_header(second: int) -> str:
    return f"Date: {formatdate(second, usegmt=True)}"
