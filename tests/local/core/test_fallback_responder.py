"""The fallback responder: each request gets its answer at once, whatever other clients do."""

from __future__ import annotations

import contextlib
import gc
import os
import socket

import psutil
import pytest
import requests
from polling import wait_until

from mnist_deploy.local.core import fallback_responder
from mnist_deploy.local.core.fallback_responder import FallbackResponder
from mnist_deploy.local.http import connection as connection_limits


@pytest.fixture
def listener():
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as opened:
        yield opened


@pytest.fixture
def fallback():
    made = FallbackResponder()
    yield made
    made.close()


def url(listener: socket.socket) -> str:
    return f"http://127.0.0.1:{listener.getsockname()[1]}/score"


def list_accepted(listener: socket.socket) -> list:
    """The open connections that this process has accepted at the listener."""
    sockets = [each for each in psutil.net_connections("tcp4") if each.pid == os.getpid()]
    at_listener = [each for each in sockets if each.laddr == listener.getsockname()]
    if not at_listener:
        pytest.skip("the sockets of a process are not listed here: wine knows no owner of a socket")
    return [each for each in at_listener if each.raddr]


@pytest.mark.parametrize("size", [0, 100, 20_000_000])
def test_request_is_answered_with_status_and_message(fallback, listener, size):
    fallback.install(listener, 503, "init() raised")
    answer = requests.post(url(listener), b"x" * size, timeout=5)
    assert (answer.status_code, answer.json()) == (503, {"message": "init() raised"})
    assert answer.headers["Connection"] == "close"


def test_unfinished_requests_delay_no_other_client(fallback, listener, monkeypatch):
    for name in ("HEAD_TIMEOUT", "IDLE_TIMEOUT", "CLOSE_TIMEOUT"):
        monkeypatch.setattr(connection_limits, name, 0)
    fallback.install(listener, 502, "later")
    with contextlib.ExitStack() as stack:
        silent = [
            stack.enter_context(socket.create_connection(listener.getsockname(), timeout=10))
            for _ in range(fallback_responder.MAX_CONNECTIONS + 20)
        ]
        for connection in silent[::2]:
            connection.sendall(b"POST /score HTTP/1.1\r\nHost:")
        assert requests.get(url(listener), timeout=5).status_code == 502
        for connection in silent:
            with contextlib.suppress(ConnectionResetError):
                assert connection.makefile("rb").read()[:12] in (b"", b"HTTP/1.1 408")
    wait_until(lambda: not list_accepted(listener))


def test_removed_response_is_not_sent(fallback, listener):
    remove = fallback.install(listener, 503, "first")
    remove()
    with pytest.raises(requests.Timeout):
        requests.get(url(listener), timeout=0.3)  # waits for the next responder
    fallback.install(listener, 503, "second")
    assert requests.get(url(listener), timeout=5).json() == {"message": "second"}


@pytest.mark.filterwarnings("error::ResourceWarning")  # about sockets that are not closed
def test_closed_responder_leaves_no_socket(listener):
    def install_and_close() -> None:
        fallback = FallbackResponder()
        remove = fallback.install(listener, 503, "first")
        with socket.create_connection(listener.getsockname(), timeout=5) as silent:
            wait_until(lambda: list_accepted(listener))
            fallback.close()
            with contextlib.suppress(ConnectionResetError):
                assert silent.recv(1) == b""
        remove()

    install_and_close()
    gc.collect()
