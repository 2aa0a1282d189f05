"""The sign at an address where nobody serves: every request is answered at once, with why."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Callable
from http import HTTPStatus

HEAD_LIMIT = 64 << 10  # bytes
PATIENCE = 10.0  # seconds that the head of a request may take
LINGER = 2.0  # seconds in which a sender may come to the end of its body
MOST = 200  # connections at once; of more, the oldest is dropped


class FallbackResponder:
    """Signs at any number of listening sockets; one thread for all of them.

    A connection costs a socket and nothing else: half-sent requests keep nobody waiting.
    """

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._connections: dict[asyncio.Transport, None] = {}  # the oldest first
        self._servers: set[asyncio.Server] = set()
        self._thread = threading.Thread(
            target=self._loop.run_forever, daemon=True, name="closed fallback"
        )
        self._thread.start()

    def install(self, listener: socket.socket, status: int, message: str) -> Callable[[], None]:
        """Answer whoever connects to `listener`, until the returned function is called.

        Parameters
        ----------
        listener : socket
            Stays open; other processes may accept on it too.
        status : int
            The HTTP status of every answer.
        message : str
            Its body is ``{"message": message}``.
        """
        body = json.dumps({"message": message}).encode()
        answer = (
            f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        ).encode() + body
        opening = self._loop.create_server(
            lambda: _Connection(answer, self._connections), sock=listener.dup(), backlog=1024
        )
        server = asyncio.run_coroutine_threadsafe(opening, self._loop).result()
        self._servers.add(server)

        def remove() -> None:
            if server in self._servers:  # not closed as a whole meanwhile
                self._servers.discard(server)
                self._in_the_loop(server.close)

        return remove

    def close(self) -> None:
        """Take down every sign, and drop who is connected."""
        servers, self._servers = self._servers, set()
        for server in servers:
            self._in_the_loop(server.close)
        for connection in list(self._connections):
            self._in_the_loop(connection.abort)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _in_the_loop(self, function: Callable[[], None]) -> None:
        async def call() -> None:
            function()

        asyncio.run_coroutine_threadsafe(call(), self._loop).result()


class _Connection(asyncio.Protocol):
    """One connection: its head is awaited, the answer sent, the rest of the request thrown away."""

    def __init__(self, answer: bytes, connections: dict[asyncio.Transport, None]) -> None:
        self._answer = answer
        self._connections = connections
        self._head = b""
        self._answered = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._end_in(PATIENCE)
        self._connections[transport] = None
        if len(self._connections) > MOST:
            next(iter(self._connections)).abort()

    def data_received(self, data: bytes) -> None:
        if self._answered:
            return
        self._head += data
        if b"\r\n\r\n" in self._head or len(self._head) > HEAD_LIMIT:
            self._answered, self._head = True, b""
            self._transport.write(self._answer)
            self._transport.write_eof()
            # Closed at once, what is still being sent would be answered by a reset, and the
            # sender might never read why.
            self._timer.cancel()
            self._end_in(LINGER)

    def connection_lost(self, error: Exception | None) -> None:
        self._timer.cancel()
        self._connections.pop(self._transport, None)

    def _end_in(self, seconds: float) -> None:
        self._timer = asyncio.get_running_loop().call_later(seconds, self._transport.abort)
