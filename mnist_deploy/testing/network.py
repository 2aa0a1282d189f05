"""The network while a workspace is mocked: some addresses answer from memory, none is left for."""

from __future__ import annotations

import io
import ipaddress
import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any
from unittest.mock import patch
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from urllib3 import HTTPResponse

CONTROL_HOST = "control.mocked.invalid"  # no name server knows .invalid
SCORING_HOST = ".services.mocked.invalid"
ENDPOINT_HOST = ".endpoints.mocked.invalid"

Answered = tuple[int, bytes, dict[str, str]]  # status, body, headers
Answering = Callable[[requests.PreparedRequest, bytes, "float | None"], Answered]

_WITH_ADDRESS = ("connect", "connect_ex", "sendto", "sendmsg")  # methods of a socket
_WITH_HOST = ("getaddrinfo", "gethostbyname", "gethostbyname_ex")


class ConnectionBlocked(RuntimeError):
    """Something was about to leave this machine while a workspace is mocked."""


class InMemoryAdapter(HTTPAdapter):
    """Hands a request to a function, and returns its answer as the response.

    Parameters
    ----------
    answer : callable
        Gets the request, its body, and how many seconds its sender waits for the answer, None
        for ever. What it raises reaches the sender.
    """

    def __init__(self, answer: Answering) -> None:
        super().__init__()
        self._answer = answer

    def send(
        self, request: requests.PreparedRequest, *_: Any, timeout: Any = None, **__: Any
    ) -> requests.Response:
        patience = timeout[1] if isinstance(timeout, tuple) else timeout
        status, body, headers = self._answer(request, _bytes(request.body), patience)
        content = HTTPResponse(io.BytesIO(body), headers, status, preload_content=False)
        return self.build_response(request, content)


def _bytes(body: Any) -> bytes:
    """The body of a request: text, bytes or, as `requests` takes it, an open file."""
    if isinstance(body, str):
        return body.encode()
    return b"".join(body) if hasattr(body, "__next__") else bytes(body or b"")


def answered(control: Answering, score: Answering) -> Iterator[AbstractContextManager[Any]]:
    """Patches that let functions answer what `requests` sends to the control plane, to services."""
    to_control, to_services = InMemoryAdapter(control), InMemoryAdapter(score)
    genuine, genuine_proxies = requests.Session.get_adapter, requests.sessions.get_environ_proxies

    def get_adapter(session: requests.Session, url: str) -> Any:
        if not is_mocked(url):
            return genuine(session, url)
        return to_control if urlsplit(url).hostname == CONTROL_HOST else to_services

    def get_environ_proxies(url: str, **options: Any) -> Any:  # a fifth of a deployment's time
        return {} if is_mocked(url) else genuine_proxies(url, **options)

    yield patch.object(requests.Session, "get_adapter", get_adapter)
    yield patch.object(requests.sessions, "get_environ_proxies", get_environ_proxies)


def is_mocked(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    return host == CONTROL_HOST or host.endswith((SCORING_HOST, ENDPOINT_HOST))


def blocked(note: Callable[[Exception], object]) -> Iterator[AbstractContextManager[Any]]:
    """Patches that let nothing leave this machine.

    Parameters
    ----------
    note : callable
        Is told of each try, as whoever tried may swallow the error.
    """

    def check(host: Any) -> None:
        if not is_here(host):
            error = ConnectionBlocked(
                f"A connection to {host} was tried while the workspace is mocked. Only `requests` "
                "to mocked services is answered; servers of the test's own belong on 127.0.0.1."
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


def is_here(host: Any) -> bool:
    """Whether a host is the loopback, this machine's own name or no host at all."""
    name = host.decode() if isinstance(host, (bytes, bytearray)) else str(host or "localhost")
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return name.lower() in ("localhost", socket.gethostname().lower())
    address = getattr(address, "ipv4_mapped", None) or address
    return address.is_loopback or address.is_unspecified
