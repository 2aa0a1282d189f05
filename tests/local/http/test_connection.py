"""A connection: its limits of time, counted second by second without waiting, and of size."""

from __future__ import annotations

import asyncio
import io

import pytest

from mnist_deploy.local.http import connection as limits
from mnist_deploy.local.http.connection import Connection

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
    """Has a limit of one body, and answers requests when the test allows it."""

    memory, body_limit, held, unsent = 20_000_000, 20_000_000, 0, 0
    is_draining, is_kept = False, True

    def __init__(self) -> None:
        self.buffer = memoryview(bytearray(1 << 20))
        self.queued = []

    def keeps(self, connection) -> bool:
        return self.is_kept

    def queue(self, connection) -> None:
        self.queued.append(connection)

    def error_response(self, connection, request, status, message) -> bytes:
        return f"{status} {message}".encode()

    def release(self, request) -> None:
        self.held -= request.size
        request.size, request.body = 0, io.BytesIO()

    def nothing(self, *_) -> None:
        pass

    connected = lost = input_read = writable = reject_head = reject_request = nothing


@pytest.fixture
def host():
    return Host()


@pytest.fixture
def client(host):
    connection = Connection(host)
    connection.connection_made(Transport())
    return connection


def send(client: Connection, data: bytes) -> None:
    client.get_buffer(len(data))[: len(data)] = data
    client.buffer_updated(len(data))


def seconds_until_rejected(client: Connection, each_second=lambda: None) -> int:
    before = client.transport.written
    for second in range(1, 400):
        each_second()
        client.tick()
        if client.transport.is_over or client.transport.written != before:
            return second
    return 0


def test_unfinished_head_is_rejected_after_a_timeout(client):
    send(client, HEAD)
    spent = seconds_until_rejected(client, lambda: send(client, b"A: b\r\n"))
    assert spent == limits.HEAD_TIMEOUT + 1
    assert client.transport.written.startswith(b"408 ")
    assert seconds_until_rejected(client) == limits.CLOSE_TIMEOUT + 1


def test_body_below_the_minimum_rate_is_rejected(client):
    send(client, HEAD + b"\r\n")
    assert seconds_until_rejected(client, lambda: send(client, b"x")) == limits.SLOW_TIMEOUT + 1
    assert client.transport.written.startswith(b"408 ")


def test_body_at_the_minimum_rate_is_read_to_its_end(client, host):
    send(client, HEAD + b"\r\n")
    assert not seconds_until_rejected(client, lambda: send(client, b"x" * limits.MIN_RATE))
    assert host.queued == [client]


def test_client_that_sends_on_after_a_rejection_is_disconnected(client):
    send(client, HEAD.replace(b"20000000", b"20000001") + b"Expect: 100-continue\r\n\r\n")
    assert client.transport.written.startswith(b"413 ")
    spent = seconds_until_rejected(client, lambda: send(client, b"x" * limits.MIN_RATE))
    assert (spent, client.transport.is_over) == (limits.CLOSE_TIMEOUT + 1, True)


def test_client_that_does_not_read_its_answer_is_disconnected(client):
    send(client, b"GET /score HTTP/1.1\r\n\r\n")
    client.waiting[0].keeps_alive = True
    assert not seconds_until_rejected(client)
    client.send(b"x" * 9_000_000)
    client.answered()

    def take(size: int) -> None:
        client.transport.taken += size

    for _ in range(100):
        take(limits.MIN_RATE)
        client.tick()
    assert not client.transport.is_over
    assert seconds_until_rejected(client, lambda: take(9)) == limits.SLOW_TIMEOUT + 1


@pytest.mark.parametrize("is_kept", [True, False])
def test_idle_connection_is_closed_sooner_if_another_process_has_to_answer(client, host, is_kept):
    host.is_kept = is_kept
    limit = limits.IDLE_TIMEOUT if is_kept else limits.HANDOVER_TIMEOUT
    assert seconds_until_rejected(client) == limit + 1
    assert client.transport.written == b""


def test_memory_limit_covers_all_bodies_but_spares_small_ones(host):
    clients = []
    for _ in range(3):
        client = Connection(host)
        client.connection_made(Transport())
        send(client, HEAD + b"\r\n")
        for _ in range(9):
            send(client, b"x" * 1_000_000)
        clients.append(client)
    assert [client.transport.written[:3] for client in clients] == [b"", b"", b"503"]
    assert host.held == 18_000_000
    host.held = host.memory
    last = Connection(host)
    last.connection_made(Transport())
    send(last, b"POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc")
    assert host.queued == [last]
    assert last.waiting[0].body.read() == b"abc"
    for client in (*clients, last):
        client.connection_lost(None)
    assert host.held == host.memory - 18_000_000


def test_large_body_in_the_second_read_is_not_charged_to_the_head(client, host):
    send(client, b"POST /score HTTP/1.1\r\nHost: a\r\n")
    send(client, b"Content-Length: 200000\r\n\r\n" + b"x" * 200_000)
    assert (client.transport.written, host.queued) == (b"", [client])


def test_pipelined_requests_are_all_read(client, host):
    request = b"POST /score HTTP/1.1\r\nContent-Length: 1\r\n\r\n1"
    sent = request * 5000
    for start in range(0, len(sent), 65_537):
        send(client, sent[start : start + 65_537])
    assert (client.transport.written, len(client.waiting)) == (b"", 5000)


@pytest.mark.parametrize("piece", [b"A: b\r\n" * 1000, b"x" * 10_000], ids=["many", "one"])
def test_head_above_its_limit_is_rejected_however_it_arrives(client, piece):
    send(client, b"POST /score HTTP/1.1\r\nA: ")
    for _ in range(20):
        send(client, piece)
    assert client.transport.written.startswith(b"431 ")
