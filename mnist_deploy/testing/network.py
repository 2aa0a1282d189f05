"""The network of a mocked workspace: `requests` is served in memory, other access is blocked."""

from __future__ import annotations

import io
import ipaddress
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any
from unittest.mock import patch
from urllib.parse import SplitResult, unquote, urlsplit

import requests
from flask import Flask
from requests.adapters import HTTPAdapter
from urllib3 import HTTPHeaderDict, HTTPResponse
from werkzeug.serving import make_server
from werkzeug.test import run_wsgi_app

from .containers import HOSTS, MemoryRuntime
from .scoring import READ_TIMEOUT

Patch = AbstractContextManager[Any]

CONTROL_HOST = "control.mocked.invalid"  # .invalid is reserved: no name server resolves it
HOST_SUFFIXES = (CONTROL_HOST, *HOSTS.values())


class ConnectionBlocked(RuntimeError):
    """A connection to another machine was attempted while a workspace is mocked."""


class InMemoryAdapter(HTTPAdapter):
    """Passes requests to the control plane's app or to the services, in this process."""

    def __init__(self, control_plane: Flask, runtime: MemoryRuntime) -> None:
        super().__init__()
        self._control_plane, self._runtime = control_plane, runtime

    def send(
        self, request: requests.PreparedRequest, *_: Any, timeout: Any = None, **__: Any
    ) -> requests.Response:
        url, runtime = urlsplit(request.url or ""), self._runtime
        environ = make_environ(request, url)
        environ[READ_TIMEOUT] = timeout[1] if isinstance(timeout, tuple) else timeout
        if url.hostname == CONTROL_HOST:
            has_changes = runtime.has_pending_changes  # from earlier requests
            pieces, status, headers = run_wsgi_app(self._control_plane, environ, buffered=True)
            if has_changes:
                runtime.apply_changes()
        else:
            pieces, status, headers = run_wsgi_app(runtime, environ, buffered=True)
        response = HTTPResponse(
            io.BytesIO(b"".join(pieces)),
            HTTPHeaderDict(headers.to_wsgi_list()),
            int(status[:3]),
            reason=status[4:],
            preload_content=False,
            request_method=request.method,
            enforce_content_length=False,  # a response to HEAD states a length and has no body
        )
        return self.build_response(request, response)


def make_environ(request: requests.PreparedRequest, url: SplitResult) -> dict[str, Any]:
    """Convert a request to a WSGI environ."""
    environ: dict[str, Any] = {
        "REQUEST_METHOD": request.method,
        "SCRIPT_NAME": "",
        "PATH_INFO": unquote(url.path, "latin-1") or "/",
        "QUERY_STRING": url.query,
        "SERVER_NAME": url.hostname,
        "SERVER_PORT": "443" if url.scheme == "https" else "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "wsgi.url_scheme": url.scheme,
    }
    for name, value in request.headers.items():
        text = value.decode("latin-1") if isinstance(value, bytes) else str(value)
        environ[f"HTTP_{name.upper().replace('-', '_')}"] = text
    body = read_body(request.body)
    return environ | {
        "CONTENT_TYPE": environ.pop("HTTP_CONTENT_TYPE", ""),
        "CONTENT_LENGTH": str(len(body)),
        "HTTP_HOST": url.netloc.rpartition("@")[2],
        "wsgi.input": io.BytesIO(body),
    }


def read_body(body: Any) -> bytes:
    """Read the body of a request: text, bytes, a file or a generator."""
    if isinstance(body, str):
        return body.encode()
    if hasattr(body, "read"):
        return body.read()
    return b"".join(body) if hasattr(body, "__next__") else bytes(body or b"")


def answer_in_memory(control_plane: Flask, runtime: MemoryRuntime) -> Iterator[Patch]:
    """Yield patches that pass the requests of `requests` to the app and the services."""
    adapter = InMemoryAdapter(control_plane, runtime)
    find_adapter = requests.Session.get_adapter
    find_proxies = requests.sessions.get_environ_proxies

    def is_mocked(url: str) -> bool:
        is_at_port = runtime.base and url.startswith(f"{runtime.base}/")
        return bool(is_at_port or (urlsplit(url).hostname or "").endswith(HOST_SUFFIXES))

    def get_adapter(session: requests.Session, url: str) -> Any:
        return adapter if is_mocked(url) else find_adapter(session, url)

    def get_environ_proxies(url: str, **options: Any) -> Any:  # slow: it reads all variables
        return {} if is_mocked(url) else find_proxies(url, **options)

    yield patch.object(requests.Session, "get_adapter", get_adapter)
    yield patch.object(requests.sessions, "get_environ_proxies", get_environ_proxies)


@contextmanager
def serve(runtime: MemoryRuntime) -> Iterator[str]:
    """Serve the mocked services on a port of the loopback interface; yield its URL."""

    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        try:
            return runtime(environ, start_response)
        except requests.RequestException:  # raised by a client in this process
            environ["werkzeug.socket"].close()
            raise

    server = make_server("127.0.0.1", 0, app, threaded=True)
    threading.Thread(target=server.serve_forever, args=(0.05,), name="mocked services").start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def block_connections(record: Callable[[Exception], object]) -> Iterator[Patch]:
    """Yield patches that record and raise `ConnectionBlocked` for other machines."""

    def guard(owner: Any, name: str, find_host: Callable[..., Any]) -> Patch:
        genuine = getattr(owner, name)

        def guarded(*args: Any, **kwargs: Any) -> Any:
            host = find_host(*args, **kwargs)
            if is_this_machine(host):
                return genuine(*args, **kwargs)
            error = ConnectionBlocked(
                f"A connection to {as_text(host)} was attempted while the workspace is mocked. "
                "Only requests that `requests` sends to mocked services are answered; "
                "mock_workspace(listen=True) accepts other HTTP clients. Servers of the test must "
                "listen on 127.0.0.1."
            )
            record(error)
            raise error

        return patch.object(owner, name, guarded)

    def host_of_address(*args: Any) -> Any:  # (host, port, ...); of a UNIX socket, a path
        return args[-1][0] if isinstance(args[-1], tuple) else None

    for name in ("connect", "connect_ex", "sendto", "sendmsg"):
        if hasattr(socket.socket, name):  # Windows has no sendmsg
            yield guard(socket.socket, name, host_of_address)
    for name in ("getaddrinfo", "gethostbyname", "gethostbyname_ex"):
        yield guard(socket, name, lambda host, *_, **__: host)


def as_text(host: Any) -> str:
    return host.decode() if isinstance(host, (bytes, bytearray)) else str(host or "localhost")


def is_this_machine(host: Any) -> bool:
    """Whether a host is the loopback, this machine's name or empty."""
    name = as_text(host)
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return name.lower() in ("localhost", socket.gethostname().lower())
    address = getattr(address, "ipv4_mapped", None) or address
    return address.is_loopback or address.is_unspecified
