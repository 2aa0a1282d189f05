"""Which clients are too slow, second by second, without waiting for them."""

from __future__ import annotations

import asyncio
import io

import pytest

from mnist_deploy.local.scoring import connection as room
from mnist_deploy.local.scoring.connection import Connection
from mnist_deploy.local.scoring.control_channel import AccessPolicy

HEAD = b"POST /score HTTP/1.1\r\nContent-Length: 20000000\r\n"


class Transport(asyncio.Transport):
    """Keeps what is written, as if a client took nothing that it is not made to take."""

    def __init__(self) -> None:
        super().__init__()
        self.written, self.taken, self.is_over = b"", 0, False

    def write(self, data: bytes) -> None:
        self.written += data
        self.taken += len(data) if len(data) < 1000 else 0

    def get_write_buffer_size(self) -> int:
        return len(self.written) - self.taken

    def end(self, *_) -> None:
        self.is_over = True

    abort = close = end

    def nothing(self, *_) -> None:
        pass

    write_eof = pause_reading = resume_reading = set_write_buffer_limits = nothing


class Host:
    """Has a limit of one body, and answers requests when the test says so."""

    memory, body_limit, held, unsent = 20_000_000, 20_000_000, 0, 0
    is_full = is_draining = False
    access = AccessPolicy(keys=None, tokens={}, public=True, model_error=None, max_pending=None,
                    deployment=None)  # fmt: skip

    def __init__(self) -> None:
        self.buffer = memoryview(bytearray(1 << 20))
        self.queued = []

    def is_ours(self, connection) -> bool:
        return self.access.public

    def queue(self, connection) -> None:
        self.queued.append(connection)

    def refuse(self, connection, request, status, message) -> bytes:
        return f"{status} {message}".encode()

    def release(self, request) -> None:
        self.held -= request.size
        request.size, request.body = 0, io.BytesIO()

    def nothing(self, *_) -> None:
        pass

    connected = lost = serve = wake = nothing


@pytest.fixture
def host():
    return Host()


@pytest.fixture
def client(host):
    connection = Connection(host, is_inner=True)
    connection.connection_made(Transport())
    return connection


def send(client: Connection, data: bytes) -> None:
    client._host.buffer[: len(data)] = data
    client.buffer_updated(len(data))


def seconds_until_refused(client: Connection, each_second=lambda: None) -> int:
    before = client.transport.written
    for second in range(1, 400):
        each_second()
        client.tick()
        if client.transport.is_over or client.transport.written != before:
            return second
    return 0


def test_half_a_head_has_some_seconds(client):
    send(client, HEAD)
    spent = seconds_until_refused(client, lambda: send(client, b"A: b\r\n"))
    assert spent == room.HEAD_SECONDS + 1
    assert client.transport.written.startswith(b"408 ")
    assert seconds_until_refused(client) == room.FAREWELL_SECONDS + 1  # and then it is cut off


def test_a_body_that_drips_has_some_seconds_in_all(client):
    send(client, HEAD + b"\r\n")
    assert seconds_until_refused(client, lambda: send(client, b"x")) == room.SLOW_SECONDS + 1
    assert client.transport.written.startswith(b"408 ")


def test_a_body_that_comes_steadily_has_all_the_time_that_it_needs(client, host):
    send(client, HEAD + b"\r\n")
    assert not seconds_until_refused(client, lambda: send(client, b"x" * room.SLOW))
    assert host.queued == [client]  # and then its turn to wait for us


def test_who_goes_on_sending_after_a_last_refusal_is_cut_off(client):
    send(client, HEAD.replace(b"20000000", b"20000001") + b"Expect: 100-continue\r\n\r\n")
    assert client.transport.written.startswith(b"413 ")
    spent = seconds_until_refused(client, lambda: send(client, b"x" * room.SLOW))
    assert (spent, client.transport.is_over) == (room.FAREWELL_SECONDS + 1, True)


def test_who_does_not_take_an_answer_has_some_seconds_in_all(client):
    send(client, b"GET /score HTTP/1.1\r\n\r\n")
    client.waiting[0].keeps_alive = True
    assert not seconds_until_refused(client)
    client.send(b"x" * 9_000_000)
    client.answered()

    def take(size: int) -> None:
        client.transport.taken += size

    for _ in range(100):
        take(room.SLOW)
        client.tick()
    assert not client.transport.is_over
    assert seconds_until_refused(client, lambda: take(9)) == room.SLOW_SECONDS + 1


@pytest.mark.parametrize("is_ours", [True, False])
def test_silence_between_requests_is_longer_unless_others_should_answer(client, host, is_ours):
    host.is_ours = lambda connection: is_ours
    limit = room.IDLE_SECONDS if is_ours else room.QUIET_SECONDS
    assert seconds_until_refused(client) == limit + 1
    assert client.transport.written == b""


def test_memory_is_for_all_bodies_together_but_small_ones_find_room(host):
    clients = []
    for _ in range(3):
        client = Connection(host, is_inner=True)
        client.connection_made(Transport())
        send(client, HEAD + b"\r\n")
        for _ in range(9):
            send(client, b"x" * 1_000_000)
        clients.append(client)
    assert [client.transport.written[:3] for client in clients] == [b"", b"", b"503"]
    assert host.held == 18_000_000
    host.held = host.memory
    last = Connection(host, is_inner=True)
    last.connection_made(Transport())
    send(last, b"POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc")
    assert host.queued == [last]
    assert last.waiting[0].body.read() == b"abc"
    for client in (*clients, last):
        client.connection_lost(None)
    assert host.held == host.memory - 18_000_000
