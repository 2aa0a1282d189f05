"""The server behind every listener: how many connections it takes, and how it ends."""

from __future__ import annotations

import contextlib
import errno
import socket
import threading

import pytest
from polling import wait_until

from mnist_deploy.local.host import networking
from mnist_deploy.local.http import connection as limits
from mnist_deploy.local.http.message import error_response
from mnist_deploy.local.http.server import HttpServer

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


class Server(HttpServer):
    """Answers when the test allows it."""

    def __init__(self, loop, listener: socket.socket, **limits_) -> None:
        super().__init__(loop, **{"memory": 1 << 20, "body_limit": 1 << 20, **limits_})
        self.listener = listener
        self.queued = []
        self.logged = []
        listener.setblocking(False)

    def listeners(self):
        return [self.listener] if self.listener else []

    def queue(self, connection) -> None:
        self.queued.append(connection)

    def log(self, message: str) -> None:
        self.logged.append(message)

    def answer(self, size: int = 0) -> None:
        connection = self.queued.pop(0)
        data = error_response(connection.waiting[0], 200, "x" * size)
        connection.send(data)
        connection.answered()


@pytest.fixture
def serve():
    """Start a server in a thread; returns it, and what opens a connection."""
    with contextlib.ExitStack() as stack:

        def start(**limits_):
            loop = networking.new_event_loop()
            listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=100))
            server = Server(loop, listener, **limits_)
            server.thread = threading.Thread(target=loop.run_forever, daemon=True)
            server.thread.start()
            server.call_soon(server.update_listeners)

            def stop() -> None:
                server.call_soon(server.close)
                wait_until(lambda: not server.connection_count)
                server.call_soon(loop.stop)
                server.thread.join()
                loop.close()

            stack.callback(stop)

            def connect() -> socket.socket:
                address = listener.getsockname()
                return stack.enter_context(socket.create_connection(address, timeout=10))

            return server, connect

        yield start


def test_connection_beyond_the_limit_takes_the_place_of_an_idle_one(serve):
    server, connect = serve(max_connections=2)
    idle, busy = connect(), connect()
    busy.sendall(GET)
    wait_until(lambda: server.queued and server.connection_count == 2)
    third = connect()
    third.sendall(GET)
    wait_until(lambda: len(server.queued) == 2)
    with contextlib.suppress(ConnectionResetError):
        assert idle.recv(1) == b""


def test_connection_beyond_the_limit_waits_while_all_are_busy(serve):
    server, connect = serve(max_connections=2)
    for _ in range(2):
        connect().sendall(GET)
    wait_until(lambda: len(server.queued) == 2)
    third = connect()
    third.sendall(GET)
    third.settimeout(0.3)
    with pytest.raises(TimeoutError):
        third.recv(1)
    assert len(server.queued) == 2
    server.call_soon(server.answer)  # that connection is idle from then on
    wait_until(lambda: len(server.queued) == 2)


def test_answers_that_clients_do_not_take_count_against_the_memory(serve):
    server, connect = serve(memory=1 << 20)
    clients = [connect() for _ in range(3)]
    for client in clients:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.sendall(GET)
    wait_until(lambda: len(server.queued) == 3)
    for _ in clients:
        server.call_soon(lambda: server.answer(32 << 20))
    wait_until(lambda: not server.queued and not server.unsent)  # they were disconnected


def test_server_without_file_descriptors_logs_it_once_and_retries(serve):
    server, connect = serve()
    rejected = []

    class Exhausted:
        """The listener, which fails twice."""

        def __getattr__(self, name):
            return getattr(real, name)

        def accept(self):
            if len(rejected) < 2:
                rejected.append(1)
                raise OSError(errno.EMFILE, "Too many open files")
            return real.accept()

    def exhaust():  # with the same descriptor, which is removed from the loop before it is added
        server.listener = None
        server.update_listeners()
        server.listener = Exhausted()
        server.update_listeners()

    real = server.listener
    server.call_soon(exhaust)
    connect().sendall(GET)
    wait_until(lambda: server.queued)
    assert server.logged[0].startswith("No connection can be accepted: Too many open files.")
    assert len(server.logged) == len(rejected)


def test_draining_server_answers_what_has_reached_it_and_stops(serve, monkeypatch):
    monkeypatch.setattr(limits, "HANDOVER_TIMEOUT", 0)
    server, connect = serve()
    client = connect()
    client.sendall(GET)
    wait_until(lambda: server.queued)
    server.call_soon(server.drain)
    wait_until(lambda: server.is_draining)
    server.queued[0].waiting[0].keeps_alive = False
    server.call_soon(server.answer)
    assert client.makefile("rb").read().startswith(b"HTTP/1.1 200 ")
    client.close()
    server.thread.join(10)
    assert not server.thread.is_alive()
