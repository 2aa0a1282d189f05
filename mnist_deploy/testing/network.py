"""The network of a mocked workspace: `requests` is answered in memory, the rest is blocked."""

from __future__ import annotations

import io
import ipaddress
import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any
from unittest.mock import patch
from urllib.parse import unquote, urlsplit

import requests
from flask import Flask, Response
from requests.adapters import HTTPAdapter
from requests.structures import CaseInsensitiveDict
from urllib3 import HTTPHeaderDict, HTTPResponse

from .containers import HOSTS, MemoryRuntime
from .scoring import Call

CONTROL_HOST = "control.mocked.invalid"  # no name server knows .invalid

_WITH_ADDRESS = ("connect", "connect_ex", "sendto", "sendmsg")  # methods of a socket
_WITH_HOST = ("getaddrinfo", "gethostbyname", "gethostbyname_ex")


class ConnectionBlocked(RuntimeError):
    """A connection would have left this machine while a workspace is mocked."""


class InMemoryAdapter(HTTPAdapter):
    """Hands a request to the control plane's app or to a mocked service, in this process.

    Parameters
    ----------
    app : Flask
        The control plane of the mocked workspace.
    runtime : MemoryRuntime
        What runs its services.
    """

    def __init__(self, app: Flask, runtime: MemoryRuntime) -> None:
        super().__init__()
        self._app, self._runtime = app, runtime

    def send(
        self, request: requests.PreparedRequest, *_: Any, timeout: Any = None, **__: Any
    ) -> requests.Response:
        url, body = urlsplit(request.url or ""), read_body(request.body)
        if url.hostname == CONTROL_HOST:
            status, headers, content = self._ask_control_plane(request, url, body)
        else:
            patience = timeout[1] if isinstance(timeout, tuple) else timeout
            response = self._runtime.answer(
                service_key(self._runtime, url.netloc, url.path),
                make_call(self._runtime, request, url, body, patience),
            )
            status, content = response.status_code, response.get_data()
            headers = HTTPHeaderDict(response.headers.items())
        answer = HTTPResponse(
            io.BytesIO(content),
            headers,
            status,
            reason=Response(status=status).status.partition(" ")[2],
            preload_content=False,
            request_method=request.method,
            enforce_content_length=False,  # that of an answer to HEAD is not empty
        )
        return self.build_response(request, answer)

    def _ask_control_plane(
        self, request: requests.PreparedRequest, url: Any, body: bytes
    ) -> tuple[int, HTTPHeaderDict, bytes]:
        was_pending = self._runtime.has_pending
        answered: list[Any] = []
        start: Any = lambda *arguments: answered.extend(arguments)  # noqa: E731
        parts: Any = self._app.wsgi_app(make_environ(request, url, body), start)
        try:
            content = b"".join(parts)
        finally:
            getattr(parts, "close", bool)()
        if was_pending:  # a change that an earlier request asked for
            self._runtime.settle()
        return int(answered[0][:3]), HTTPHeaderDict(answered[1]), content


def make_environ(request: requests.PreparedRequest, url: Any, body: bytes) -> dict[str, Any]:
    """The request as a WSGI server hands it to an app."""
    environ = {
        "REQUEST_METHOD": request.method,
        "SCRIPT_NAME": "",
        "PATH_INFO": unquote(url.path, "latin-1"),
        "QUERY_STRING": url.query,
        "SERVER_NAME": CONTROL_HOST,
        "SERVER_PORT": "443" if url.scheme == "https" else "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "HTTP_HOST": CONTROL_HOST,
        "wsgi.url_scheme": url.scheme,
        "wsgi.input": io.BytesIO(body),
        "wsgi.errors": io.StringIO(),
    }
    for name, value in request.headers.items():
        key = name.upper().replace("-", "_")
        text = value.decode("latin-1") if isinstance(value, bytes) else str(value)
        environ[key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{key}"] = text
    return environ | {"CONTENT_LENGTH": str(len(body)), "HTTP_HOST": CONTROL_HOST}


def service_key(runtime: MemoryRuntime, netloc: str, path: str) -> str:
    """The key of an address in the runtime: its host, or the beginning of the path."""
    return "/".join(path.strip("/").split("/")[:2]) if runtime.base else netloc.lower()


def make_call(
    runtime: MemoryRuntime,
    request: requests.PreparedRequest,
    url: Any,
    body: bytes,
    patience: float | None,
) -> Call:
    path = unquote(url.path) or "/"
    if runtime.base:
        path = "/" + "/".join(path.strip("/").split("/")[2:])
    headers = CaseInsensitiveDict(request.headers)
    return Call(request.method or "GET", path, url.query, headers, body, patience)


def read_body(body: Any) -> bytes:
    """The body of a request: text, bytes or, as `requests` takes it, a file or a generator."""
    if isinstance(body, str):
        return body.encode()
    if hasattr(body, "read"):
        return body.read()
    return b"".join(body) if hasattr(body, "__next__") else bytes(body or b"")


def answer_in_memory(app: Flask, runtime: MemoryRuntime) -> Iterator[AbstractContextManager[Any]]:
    """Patches that let the app and the services answer what `requests` sends to them."""
    adapter = InMemoryAdapter(app, runtime)
    genuine, genuine_proxies = requests.Session.get_adapter, requests.sessions.get_environ_proxies

    def get_adapter(session: requests.Session, url: str) -> Any:
        return adapter if is_mocked(url, runtime) else genuine(session, url)

    def get_environ_proxies(url: str, **options: Any) -> Any:  # a fifth of a deployment's time
        return {} if is_mocked(url, runtime) else genuine_proxies(url, **options)

    yield patch.object(requests.Session, "get_adapter", get_adapter)
    yield patch.object(requests.sessions, "get_environ_proxies", get_environ_proxies)


def is_mocked(url: str, runtime: MemoryRuntime) -> bool:
    if runtime.base and url.startswith(runtime.base + "/"):
        return True
    host = urlsplit(url).hostname or ""
    return host == CONTROL_HOST or host.endswith(tuple(HOSTS.values()))


def block_connections(note: Callable[[Exception], object]) -> Iterator[AbstractContextManager[Any]]:
    """Patches that let no connection leave this machine.

    Parameters
    ----------
    note : callable
        Gets the error of each attempt, which the code that made it may have swallowed.
    """

    def check(host: Any) -> None:
        if not is_here(host):
            error = ConnectionBlocked(
                f"A connection to {as_text(host)} was tried while the workspace is mocked. Only "
                "`requests` to mocked services is answered, or any client of "
                "mock_workspace(listen=True); servers of the test's own belong on 127.0.0.1."
            )
            note(error)
            raise error

    def with_address(genuine: Callable[..., Any]) -> Callable[..., Any]:
        def checked(*args: Any) -> Any:
            if isinstance(args[-1], tuple):  # (host, port, ...); that of a UNIX socket is a path
                check(args[-1][0])
            return genuine(*args)

        return checked

    def with_host(genuine: Callable[..., Any]) -> Callable[..., Any]:
        def checked(host: Any, *args: Any, **kwargs: Any) -> Any:
            check(host)
            return genuine(host, *args, **kwargs)

        return checked

    for name in _WITH_ADDRESS:
        if hasattr(socket.socket, name):  # Windows has no sendmsg
            yield patch.object(socket.socket, name, with_address(getattr(socket.socket, name)))
    for name in _WITH_HOST:
        yield patch.object(socket, name, with_host(getattr(socket, name)))


def as_text(host: Any) -> str:
    return host.decode() if isinstance(host, (bytes, bytearray)) else str(host or "localhost")


def is_here(host: Any) -> bool:
    """Whether a host is the loopback, this machine's own name or no host at all."""
    name = as_text(host)
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return name.lower() in ("localhost", socket.gethostname().lower())
    address = getattr(address, "ipv4_mapped", None) or address
    return address.is_loopback or address.is_unspecified
