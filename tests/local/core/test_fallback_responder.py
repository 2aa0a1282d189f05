"""The closed sign: everybody is told at once, whoever else is connected."""

from __future__ import annotations

import contextlib
import gc
import socket
import time

import pytest
import requests
from weights_service import until

from mnist_deploy.local.core import fallback_responder
from mnist_deploy.local.core.fallback_responder import FallbackResponder


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


@pytest.mark.parametrize("size", [0, 100, 20_000_000])
def test_everybody_is_told_why(fallback, listener, size):
    fallback.install(listener, 503, "init() raised")
    answer = requests.post(url(listener), b"x" * size, timeout=5)
    assert (answer.status_code, answer.json()) == (503, {"message": "init() raised"})
    assert answer.headers["Connection"] == "close"


def test_half_sent_requests_keep_nobody_waiting(fallback, listener, monkeypatch):
    monkeypatch.setattr(fallback_responder, "PATIENCE", 0.5)
    fallback.install(listener, 502, "later")
    silent = [
        socket.create_connection(listener.getsockname())
        for _ in range(fallback_responder.MOST + 20)
    ]
    for connection in silent[::2]:
        connection.sendall(b"POST /score HTTP/1.1\r\nHost:")
    began = time.monotonic()
    assert requests.get(url(listener), timeout=5).status_code == 502
    assert time.monotonic() - began < 1
    for connection in silent:  # none is kept for ever
        connection.settimeout(5)
        try:
            assert connection.recv(1) == b""
        except ConnectionResetError:
            continue
        finally:
            connection.close()
    until(lambda: not fallback._connections)


def test_a_sign_that_was_taken_down_answers_nobody(fallback, listener):
    remove = fallback.install(listener, 503, "first")
    remove()
    with pytest.raises(requests.Timeout):
        requests.get(url(listener), timeout=0.3)  # waits, for whoever serves next
    fallback.install(listener, 503, "second")
    assert requests.get(url(listener), timeout=5).json() == {"message": "second"}


@pytest.mark.filterwarnings("error")  # what nobody has closed
def test_closed_as_a_whole_nothing_is_left(listener):
    def hang_and_close() -> None:
        fallback = FallbackResponder()
        remove = fallback.install(listener, 503, "first")
        with socket.create_connection(listener.getsockname(), timeout=5) as silent:
            until(lambda: fallback._connections)
            fallback.close()
            with contextlib.suppress(ConnectionResetError):
                assert silent.recv(1) == b""
        remove()

    hang_and_close()
    gc.collect()
