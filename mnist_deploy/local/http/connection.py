"""A client's connection: parses requests, enforces limits, and sends answers in order."""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from typing import Protocol

import httptools

from .message import Request

MAX_HEAD = 64 << 10  # bytes
MAX_DROPPED = 1 << 30  # bytes of a rejected body that are read, so that the client gets the answer
SMALL_BODY = 64 << 10  # bytes of a body that are accepted even if all memory is in use

# In seconds during which the event loop ran: while run() is busy, no time-out advances.
HEAD_TIMEOUT = 15
IDLE_TIMEOUT = 60
HANDOVER_TIMEOUT = 1  # idle time, if another process should answer the client's next request
SLOW_TIMEOUT = 30  # the sum of all seconds with fewer than MIN_RATE bytes of body or answer
MIN_RATE = 64 << 10
CLOSE_TIMEOUT = 5  # from the last answer until the client closes

TRUNCATED = "The request could not be read to its end"
HEAD_TOO_LARGE = f"The head of the request is larger than {MAX_HEAD} bytes."

Rejection = tuple[int, str]  # a status and a message


class Host(Protocol):
    """The interface of a server for its connections.

    Attributes
    ----------
    buffer : memoryview
        The read buffer of all connections: its content is processed before the next read.
    memory : int
        The maximum of `held`, and of `unsent`, in bytes.
    held : int
        Bytes of request bodies in memory.
    unsent : int
        Bytes of answers that the clients have not received yet.
    body_limit : int
        The maximum size of one body in bytes.
    allows_half_close : bool
        Whether a client gets its answers after it has closed its side of the connection. A client
        that has disconnected cannot be distinguished from such a client before an answer is sent.
    """

    buffer: memoryview
    memory: int
    body_limit: int
    allows_half_close: bool
    held: int
    is_draining: bool

    @property
    def unsent(self) -> int: ...
    def connected(self, connection: Connection) -> None: ...
    def lost(self, connection: Connection) -> None: ...

    def reject_head(self, connection: Connection, request: Request) -> Rejection | None:
        """The rejection of a request, called when its head was read; None to read the body."""

    def reject_request(self, connection: Connection, request: Request) -> Rejection | None:
        """The rejection of a request, called when its body was read; None to queue it."""

    def queue(self, connection: Connection) -> None:
        """Answer the first request of ``connection.waiting``."""

    def input_read(self) -> None:
        """Called when all data of one read was parsed."""

    def writable(self, connection: Connection) -> None:
        """Called when the client receives its answers again."""

    def keeps(self, connection: Connection) -> bool:
        """Whether this process will answer the next request on a connection."""

    def error_response(
        self, connection: Connection, request: Request, status: int, message: str
    ) -> bytes: ...
    def release(self, request: Request) -> None:
        """Free the body of a request that was answered, or whose connection was closed."""


class Connection(asyncio.BufferedProtocol):
    """Reads requests, rejects those that break a limit or a rule, and queues the others.

    Parameters
    ----------
    host : Host
    listener : socket
        The socket that accepted the connection.
    """

    transport: asyncio.Transport

    def __init__(self, host: Host, listener: socket.socket | None = None) -> None:
        self._host = host
        self.listener = listener
        self._parser = httptools.HttpRequestParser(self)
        self._reading: Request | None = None
        self._upgrade: Request | None = None
        self.waiting: deque[Request] = deque()  # read or rejected, and not yet answered
        self.is_congested = False  # the write buffer is full: the client reads too slowly
        self._is_discarding_input = False  # further input is ignored
        self._has_ended = False  # the client has closed its side
        self._is_closing = False  # the last answer was sent
        self.seconds = 0  # of the time-out that applies now
        # Bytes of bodies and answers: so far, and received by the other side at the last tick.
        self._transferred = self._transferred_before = 0

    # Called by the transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.set_write_buffer_limits(self._host.memory // 16)
        local, remote = (transport.get_extra_info(name) for name in ("sockname", "peername"))
        if not (isinstance(local, tuple) and isinstance(remote, tuple)):  # a UNIX socket
            local = remote = ("127.0.0.1", 0)
        self.environ = {"SERVER_NAME": local[0], "SERVER_PORT": str(local[1]),
                        "REMOTE_ADDR": remote[0], "REMOTE_PORT": str(remote[1])}  # fmt: skip
        self._host.connected(self)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._host.buffer

    def buffer_updated(self, size: int) -> None:
        if not self._is_discarding_input:
            self._feed(self._host.buffer[:size])
            self._apply_backpressure()
            self._host.input_read()

    def eof_received(self) -> bool:
        """Keep the connection half-open while answers are due, if the host allows that."""
        self._has_ended = True
        if self._reading:
            self._reject_rest(400, f"{TRUNCATED}: the connection was closed.")
        if self.waiting and not self._host.allows_half_close:
            self.transport.abort()
            return False
        if self.waiting:
            self.waiting[-1].keeps_alive = False
        return bool(self.waiting)

    def connection_lost(self, error: Exception | None) -> None:
        for request in (*self.waiting, *filter(None, [self._reading])):
            self._host.release(request)
        self.waiting.clear()
        self._is_discarding_input = True
        self._host.lost(self)

    def pause_writing(self) -> None:
        self.is_congested = True
        self._apply_backpressure()

    def resume_writing(self) -> None:
        self.is_congested = False
        self._apply_backpressure()
        self._host.writable(self)

    def _apply_backpressure(self) -> None:
        """Stop reading while the client receives no answers, or while two requests wait."""
        if self.is_congested or len(self.waiting) > 1:
            self.transport.pause_reading()
        else:
            self.transport.resume_reading()

    # Called by the parser

    def _feed(self, data: bytes | memoryview) -> None:
        before = self._reading
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._ignore_upgrade(bytes(data[upgrade.args[0] :]))
        except httptools.HttpParserError as error:
            if not self._is_discarding_input:
                self._reject_rest(400, f"{TRUNCATED}: {error}")
        request = self._reading
        if request is None or request.has_head:
            return
        if request is before:  # the whole read belongs to the head of this request
            request.unparsed_size += len(data)
        if max(request.head_size, request.unparsed_size) > MAX_HEAD:
            self._reject_rest(431, HEAD_TOO_LARGE)

    def on_message_begin(self) -> None:
        if not self._is_discarding_input:
            self._reading, self.seconds = Request(), 0

    def on_url(self, part: bytes) -> None:
        if self._reading:
            self._reading.target += part
            self._reading.head_size += len(part)

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._reading and not self._reading.has_head:  # trailers of chunks are dropped
            self._reading.add_header(name, value)

    def on_headers_complete(self) -> None:
        request, self.seconds = self._reading, 0
        if request is None or self._is_discarding_input:
            return
        request.has_head = True
        request.method = self._parser.get_method().decode()
        request.version = self._parser.get_http_version()
        request.keeps_alive = self._parser.should_keep_alive()
        if self._parser.should_upgrade() and request.method != "CONNECT":
            self._upgrade = request
            return
        self._check_head(request)

    def on_body(self, data: bytes) -> None:
        request = self._reading
        self._transferred += len(data)
        if request is None:
            return
        if request.rejection:
            request.dropped += len(data)
            if request.dropped > MAX_DROPPED:
                self.transport.abort()
            return
        request.size += len(data)
        self._host.held += len(data)
        if request.size > self._host.body_limit:
            self._reject(request, 413, self._too_large())
        elif request.size > SMALL_BODY and self._host.held > self._host.memory:
            message = "Other requests use all memory for request bodies. Try again later."
            self._reject(request, 503, message)
        else:
            request.body.write(data)

    def on_message_complete(self) -> None:
        request = self._reading
        if request is None or self._upgrade or self._is_discarding_input:
            return
        self._reading, self.seconds = None, 0
        self._is_discarding_input = not request.keeps_alive
        if request.rejection:
            return  # the rejection was sent, or waits for the answers before it
        rejection = self._host.reject_request(self, request)
        if rejection:
            self._reject(request, *rejection)
        else:
            request.complete()
            self._wait(request)

    # Requests

    def _check_head(self, request: Request) -> None:
        """Reject a request because of its head, or read its body."""
        if request.head_size > MAX_HEAD:
            return self._reject_rest(431, HEAD_TOO_LARGE)
        if request.method == "CONNECT":
            return self._reject_rest(405, "CONNECT is not supported: this is not a proxy.")
        try:
            url = httptools.parse_url(request.target)
        except httptools.HttpParserInvalidURLError:
            return self._reject(request, 400, "The request's target is not a URL.")
        request.path = (url.path or b"/").decode("latin-1")
        request.query = (url.query or b"").decode("latin-1")
        rejection = self._host.reject_head(self, request)
        if rejection:
            return self._reject(request, *rejection)
        if int(request.headers.get("content-length", 0)) > self._host.body_limit:
            return self._reject(request, 413, self._too_large())
        if request.headers.get("expect", "").lower() == "100-continue":
            request.awaits_continue = request.version == "1.1"
            self._send_continue()
        return None

    def _too_large(self) -> str:
        return (
            f"The body is larger than {self._host.body_limit} bytes, the limit of this service "
            "with its memory. Send smaller batches."
        )

    def _send_continue(self) -> None:
        """Send ``100 Continue`` to a client that waits for it before it sends the body."""
        if self._reading and self._reading.awaits_continue and not self.waiting:
            self._reading.awaits_continue = False
            self.send(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _reject(self, request: Request, status: int, message: str) -> None:
        """Answer without the application, and discard the rest of the body."""
        self._host.release(request)
        request.rejection = status, message
        if "expect" in request.headers:  # the client may or may not send the body
            request.keeps_alive = False
        self._wait(request)

    def _reject_rest(self, status: int, message: str) -> None:
        """Reject the request that is being read, and ignore all further input."""
        self._is_discarding_input = True
        request, self._reading = self._reading or Request(), None
        request.keeps_alive = False
        if request.rejection is None:
            self._reject(request, status, message)
        elif request not in self.waiting:
            self._close()

    def _ignore_upgrade(self, rest: bytes) -> None:
        """Parse a request again without its header Upgrade, which a server may ignore."""
        request, self._upgrade = self._upgrade, None
        if request is None:
            return
        del request.headers["upgrade"]
        lines = [f"{request.method} {request.target.decode('latin-1')} HTTP/1.1"]
        lines += [f"{name}: {value}" for name, value in request.headers.items()]
        self._parser = httptools.HttpRequestParser(self)
        self._feed("\r\n".join([*lines, "\r\n"]).encode("latin-1") + rest)

    def _wait(self, request: Request) -> None:
        self.waiting.append(request)
        if len(self.waiting) == 1:
            self._next()

    def _next(self) -> None:
        """Answer rejected requests until the application must answer the next one."""
        while self.waiting and (rejection := self.waiting[0].rejection):
            request = self.waiting.popleft()
            self.send(self._host.error_response(self, request, *rejection))
            if not request.keeps_alive:
                return self._close()
        if self.waiting:
            self._host.queue(self)
        else:
            self._send_continue()
        return None

    def answered(self) -> None:
        """Continue with the next request, after the answer to the first one was sent."""
        self.seconds = 0
        request = self.waiting.popleft()
        self._host.release(request)
        if request.keeps_alive:
            self._next()
            self._apply_backpressure()
        else:
            self._close()

    def send(self, data: bytes) -> None:
        self._transferred += len(data)
        self.transport.write(data)
        if self.unsent > SMALL_BODY and self._host.unsent > self._host.memory:
            self.transport.abort()

    def _close(self) -> None:
        """Close the connection so that a client which is still sending gets the last answer."""
        self._is_discarding_input = self._is_closing = True
        self.seconds = 0
        if self._has_ended:
            self.transport.close()
            return
        try:
            self.transport.write_eof()
        except (OSError, NotImplementedError):  # closed by the client, or TLS
            self.transport.close()

    # Slow clients

    @property
    def unsent(self) -> int:
        """Bytes of answers that the client has not received yet."""
        return self.transport.get_write_buffer_size()

    def tick(self) -> None:
        """Count one second of the time-out that applies now; close the connection at its end."""
        transferred = self._transferred - self.unsent
        is_slow = transferred - self._transferred_before < MIN_RATE
        self._transferred_before = transferred
        if self.unsent:
            limit = SLOW_TIMEOUT
        elif self._is_closing:
            limit = CLOSE_TIMEOUT
        elif self.waiting:
            return  # the client waits for the server
        elif self._reading is None:
            limit = IDLE_TIMEOUT if self._host.keeps(self) else HANDOVER_TIMEOUT
        elif self._reading.has_head:
            limit = SLOW_TIMEOUT
        else:
            limit = HEAD_TIMEOUT
        self.seconds += limit != SLOW_TIMEOUT or is_slow
        if self.seconds <= (HANDOVER_TIMEOUT if self._host.is_draining else limit):
            return
        if self._reading and not (self.unsent or self._is_closing):
            self._reject_rest(408, f"The request did not arrive within {limit} s.")
        else:
            self.transport.abort()
