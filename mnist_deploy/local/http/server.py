"""Accepts connections on listening sockets, keeps their limits, and drains them at the end."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import io
import resource
import socket
from collections.abc import Callable, Collection

from .connection import Connection, Rejection
from .message import Request, error_response

MAX_CONNECTIONS = 1000
READ_SIZE = 1 << 20  # bytes that are read from a connection at a time
EXHAUSTED = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}


class HttpServer:
    """The connections of one process; a subclass answers their requests.

    A subclass gives `listeners`, `queue`, and what it rejects; it may add to `tick`. All methods
    are called in the loop's thread, but `call_soon`.

    Parameters
    ----------
    loop : asyncio.AbstractEventLoop
    memory : int
        Bytes that the bodies that are kept may take, and the answers that are not taken.
    body_limit : int
        Bytes of one body.
    max_connections : int
        Of more, the one that was silent for the longest is closed.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        memory: int,
        body_limit: int,
        max_connections: int = MAX_CONNECTIONS,
    ) -> None:
        self.memory = memory
        self.body_limit = body_limit
        self.held = 0
        self.buffer = memoryview(bytearray(READ_SIZE))
        self.is_draining = False
        self._may_stop = False
        self._loop = loop
        self._connections: dict[Connection, None] = {}  # the oldest first
        descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self._max_connections = min(max_connections, descriptors // 2)
        self._handshakes: set[asyncio.Task[None]] = set()
        self._accepting: set[socket.socket] = set()
        self._is_exhausted = False  # no file descriptor was left for the last connection
        self._next_tick: asyncio.TimerHandle | None = None

    # For subclasses

    def listeners(self) -> Collection[socket.socket]:
        """Where connections are accepted now."""
        raise NotImplementedError

    def queue(self, connection: Connection) -> None:
        """Answer the first of ``connection.waiting``."""
        raise NotImplementedError

    def reject_head(self, connection: Connection, request: Request) -> Rejection | None:
        return None

    def reject_request(self, connection: Connection, request: Request) -> Rejection | None:
        return None

    def input_read(self) -> None:
        pass

    def writable(self, connection: Connection) -> None:
        pass

    def keeps(self, connection: Connection) -> bool:
        return not self.is_draining

    def log(self, message: str) -> None:
        """A line in the log."""

    def error_response(
        self, connection: Connection, request: Request, status: int, message: str
    ) -> bytes:
        if not self.keeps(connection):
            request.keeps_alive = False
        return error_response(request, status, message)

    def release(self, request: Request) -> None:
        self.held -= request.size
        request.size, request.body = 0, io.BytesIO()

    def lost(self, connection: Connection) -> None:
        self._connections.pop(connection, None)
        self._stop_if_drained()

    # Connections

    @property
    def unsent(self) -> int:
        """Bytes of answers that clients have not taken yet."""
        return sum(connection.unsent for connection in self._connections)

    def call_soon(self, work: Callable[[], object]) -> None:
        """Do it when the loop has its turn: for a signal's handler, or another thread."""
        with contextlib.suppress(RuntimeError):  # the loop is closed: the server has ended
            self._loop.call_soon_threadsafe(work)

    def update_listeners(self) -> None:
        """Accept at `listeners`, and nowhere while draining or without room."""
        may_accept = not self.is_draining and not self._is_exhausted and self._can_make_room()
        wanted = set(self.listeners()) if may_accept else set()
        for listener in wanted - self._accepting:
            self._loop.add_reader(listener, self.accept, listener)
        for listener in self._accepting - wanted:
            self._loop.remove_reader(listener)
        self._accepting = wanted

    def accept(self, listener: socket.socket) -> bool:
        """Accept one connection, so that other processes get some too; whether there was one."""
        if listener not in self.listeners() or not self._make_room():
            self.update_listeners()
            return False
        try:
            client, _ = listener.accept()
        except OSError as error:  # another process was quicker, or the client has gone
            if error.errno in EXHAUSTED:
                self._pause_accepting(error)
            return False
        client.setblocking(False)
        connection = Connection(self, listener)
        handshake = self._loop.create_task(self._handshake(connection, client))
        self._handshakes.add(handshake)
        handshake.add_done_callback(self._handshakes.discard)
        self._schedule_tick()
        return True

    async def _handshake(self, connection: Connection, client: socket.socket) -> None:
        with contextlib.suppress(OSError):  # the client may have gone already
            await self._loop.connect_accepted_socket(lambda: connection, client)

    def _pause_accepting(self, error: OSError) -> None:
        """Accept nothing until the next tick: the listener stays readable all that time."""
        self.log(f"No connection can be accepted: {error.strerror}. Trying again each second.")
        self._is_exhausted = True
        self.update_listeners()
        self._schedule_tick()

    def connected(self, connection: Connection) -> None:
        self._connections[connection] = None

    def _can_make_room(self) -> bool:
        return len(self._connections) < self._max_connections or self._find_idle() is not None

    def _make_room(self) -> bool:
        if len(self._connections) < self._max_connections:
            return True
        idle = self._find_idle()
        if idle is None:
            return False
        idle.transport.abort()
        del self._connections[idle]
        return True

    def _find_idle(self) -> Connection | None:
        """The connection that was silent for the longest: without request, or with half a one."""
        idle = [each for each in self._connections if not (each.waiting or each.unsent)]
        return max(idle, key=lambda each: each.seconds, default=None)

    # Once a second, while there are connections

    def _schedule_tick(self) -> None:
        if self._next_tick is None:
            self._next_tick = self._loop.call_later(1, self._tick)

    def _tick(self) -> None:
        self._next_tick = None
        self._is_exhausted = False
        for connection in list(self._connections):
            connection.tick()
        self.update_listeners()
        self.tick()
        if self._connections or self._handshakes or self.is_draining:
            self._schedule_tick()
        self._stop_if_drained()

    def tick(self) -> None:
        """Called a second after the first connection and each second while there are some."""

    # The end

    def drain(self, linger: float = 0) -> None:
        """Accept the clients that have connected, no others, and stop when all is answered.

        Parameters
        ----------
        linger : float
            Seconds in which connections may still arrive.
        """
        self._accept_waiting()
        self.is_draining = True
        self.update_listeners()
        self._schedule_tick()
        self._loop.call_later(linger, self._finish_draining)

    def _finish_draining(self) -> None:
        self._accept_waiting()
        self._may_stop = True
        self._stop_if_drained()

    def _accept_waiting(self) -> None:
        for listener in self.listeners():
            while self.accept(listener):
                pass

    def _stop_if_drained(self) -> None:
        if self._may_stop and not (self._connections or self._handshakes):
            self._loop.stop()
