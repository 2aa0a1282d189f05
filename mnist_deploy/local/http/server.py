"""Accepts connections on listening sockets, limits their number, and drains them at shutdown."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import io
import socket
from collections.abc import Callable, Collection

from ..host import networking
from .connection import Connection, Rejection
from .message import Request, error_response

MAX_CONNECTIONS = 1000
READ_SIZE = 1 << 20  # bytes that are read from a connection at a time
EXHAUSTED = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}


class HttpServer:
    """The connections of one process; a subclass answers their requests.

    A subclass implements `listeners` and `queue`, and may override the other methods in the
    section "For subclasses", `lost` and `tick`. Only `call_soon` may be called from other threads
    than the loop's.

    Parameters
    ----------
    loop : asyncio.AbstractEventLoop
    memory : int
        The maximum of request bodies in memory, and of unsent answers, in bytes.
    body_limit : int
        The maximum size of one body in bytes.
    max_connections : int
        The maximum number of connections. The connection that was idle for the longest time is
        closed for a new one.
    """

    allows_half_close = True

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
        self._max_connections = min(max_connections, networking.max_connections())
        self._handshakes: set[asyncio.Task[None]] = set()
        self._accepting: set[socket.socket] = set()
        self._is_exhausted = False  # no file descriptor was left for the last connection
        self._next_tick: asyncio.TimerHandle | None = None

    # For subclasses

    def listeners(self) -> Collection[socket.socket]:
        """The sockets on which connections are accepted now."""
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
        """Write a line to the log."""

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
    def connection_count(self) -> int:
        return len(self._connections)

    @property
    def unsent(self) -> int:
        """Bytes of answers that the clients have not received yet."""
        return sum(connection.unsent for connection in self._connections)

    def call_soon(self, work: Callable[[], object]) -> None:
        """Call `work` in the loop's thread; for signal handlers and other threads."""
        with contextlib.suppress(RuntimeError):  # the loop is closed: the server has ended
            self._loop.call_soon_threadsafe(work)

    def update_listeners(self) -> None:
        """Accept on `listeners`; on none while draining, or if no connection can be closed."""
        may_accept = not self.is_draining and not self._is_exhausted and self._has_free_slot()
        accepting = set(self.listeners()) if may_accept else set()
        for listener in accepting - self._accepting:
            self._loop.add_reader(listener, self.accept, listener)
        for listener in self._accepting - accepting:
            self._loop.remove_reader(listener)
        self._accepting = accepting

    def accept(self, listener: socket.socket) -> bool:
        """Accept one connection, and leave others to other processes; False if none is accepted."""
        if listener not in self.listeners() or not self._free_slot():
            self.update_listeners()
            return False
        try:
            client, _ = listener.accept()
        except OSError as error:  # accepted by another process, or closed by the client
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
        with contextlib.suppress(OSError):  # the client may have closed the connection already
            await self._loop.connect_accepted_socket(lambda: connection, client)

    def _pause_accepting(self, error: OSError) -> None:
        """Accept nothing until the next tick, because the listener would stay readable."""
        self.log(f"No connection can be accepted: {error.strerror}. Trying again each second.")
        self._is_exhausted = True
        self.update_listeners()
        self._schedule_tick()

    def connected(self, connection: Connection) -> None:
        self._connections[connection] = None

    def _has_free_slot(self) -> bool:
        return self.connection_count < self._max_connections or self._find_idle() is not None

    def _free_slot(self) -> bool:
        """Close an idle connection if there are too many; False if none is idle."""
        if self.connection_count < self._max_connections:
            return True
        idle = self._find_idle()
        if idle is None:
            return False
        idle.transport.abort()
        del self._connections[idle]
        return True

    def _find_idle(self) -> Connection | None:
        """The connection that was idle for the longest time, without a complete request."""
        idle = [each for each in self._connections if not (each.waiting or each.unsent)]
        return max(idle, key=lambda each: each.seconds, default=None)

    # The tick: once a second while there are connections

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
        """Called one second after the first connection, and each second while there are some."""

    # Shutdown

    def close(self) -> None:
        """Close all connections at once."""
        for connection in list(self._connections):
            connection.transport.abort()
        for handshake in self._handshakes:
            handshake.cancel()
        if self._next_tick is not None:
            self._next_tick.cancel()

    def drain(self, linger: float = 0) -> None:
        """Accept the connections that have arrived, answer all requests, then stop the loop.

        Parameters
        ----------
        linger : float
            Seconds in which further connections may arrive.
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
