"""One client's connection: its requests are read here, and answered in their order."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Protocol

import httptools

from .control_channel import AccessPolicy
from .response import DEPLOYMENT, Request

HEAD_LIMIT = 64 << 10  # bytes
BODY_LIMIT = 256 << 20  # bytes, where memory_gb is_authorized that
DROPPED_LIMIT = 1 << 30  # bytes of a body that is refused: a client listens when all is sent
SMALL = 64 << 10  # bytes of a body that find room whatever others send

# Seconds in which the loop had its turn: for a long run() no sender is to blame.
HEAD_SECONDS = 15
IDLE_SECONDS = 60
QUIET_SECONDS = 1  # where others should answer what comes next: closed under a request, it is lost
SLOW_SECONDS = 30  # in all, with fewer than SLOW bytes of body or answer in each
SLOW = 64 << 10
FAREWELL_SECONDS = 5  # from the last answer until the client closes

KEY_WANTED = (
    "This service asks for a key: send the header 'Authorization: Bearer <key>' with one of its "
    "keys, which get_keys() returns, or with a token that has not ended."
)
NOT_READ = "The request could not be read to its end"
HEAD_TOO_LARGE = f"The head of the request is larger than {HEAD_LIMIT} bytes."


class Host(Protocol):
    """What a connection needs of its server.

    Attributes
    ----------
    buffer : memoryview
        Where all connections read into: each looks at it before the next one reads.
    memory : int
        Bytes that the bodies that are kept may take, and the answers that are not taken.
    held, unsent : int
        Bytes that they take now.
    """

    buffer: memoryview
    memory: int
    body_limit: int
    held: int
    is_draining: bool

    @property
    def access(self) -> AccessPolicy: ...
    @property
    def unsent(self) -> int: ...
    @property
    def is_full(self) -> bool: ...
    def connected(self, connection: Connection) -> None: ...
    def lost(self, connection: Connection) -> None: ...
    def queue(self, connection: Connection) -> None: ...
    def serve(self) -> None: ...
    def wake(self) -> None: ...
    def is_ours(self, connection: Connection) -> bool: ...
    def refuse(
        self, connection: Connection, request: Request, status: int, message: str
    ) -> bytes: ...
    def release(self, request: Request) -> None: ...


class Connection(asyncio.BufferedProtocol):
    """Reads requests, refuses those that must not reach the script, and queues the others.

    Parameters
    ----------
    host : Host
    is_inner : bool
        It came over the container's inner socket, where no key is asked for.
    """

    transport: asyncio.Transport

    def __init__(self, host: Host, *, is_inner: bool) -> None:
        self._host = host
        self.is_inner = is_inner
        self._parser = httptools.HttpRequestParser(self)
        self._reading: Request | None = None
        self._upgrade: Request | None = None
        self.waiting: deque[Request] = deque()  # read or refused, and not yet answered
        self.is_congested = False  # the client does not read its answers
        self._is_discarding_input = False  # nothing that still comes is looked at
        self._has_ended = False  # the client sends nothing more
        self._is_leaving = False  # the last answer was sent
        self.seconds = 0  # that count against the client
        self._moved = self._moved_before = 0  # bytes of bodies and answers

    # What the transport calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.set_write_buffer_limits(self._host.memory // 16)
        here, there = (transport.get_extra_info(name) for name in ("sockname", "peername"))
        if self.is_inner:
            here = there = ("127.0.0.1", 0)
        self.environ = {"SERVER_NAME": here[0], "SERVER_PORT": str(here[1]),
                        "REMOTE_ADDR": there[0], "REMOTE_PORT": str(there[1])}  # fmt: skip
        self._host.connected(self)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._host.buffer

    def buffer_updated(self, size: int) -> None:
        if not self._is_discarding_input:
            self._feed(self._host.buffer[:size])
            self._pace()
            self._host.serve()

    def eof_received(self) -> bool:
        """Half a connection is enough for the answers; whether there are some to come."""
        self._has_ended = True
        if self._reading:
            self._refuse_the_rest(400, f"{NOT_READ}: the connection was closed.")
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
        self._pace()

    def resume_writing(self) -> None:
        self.is_congested = False
        self._pace()
        self._host.wake()

    def _pace(self) -> None:
        """Read no further than the client reads, nor requests before the last are answered."""
        if self.is_congested or len(self.waiting) > 1:
            self.transport.pause_reading()
        else:
            self.transport.resume_reading()

    # What the parser calls

    def _feed(self, data: bytes | memoryview) -> None:
        request = self._reading
        if request and not request.has_head:
            request.head_size += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._ignore_upgrade(bytes(data[upgrade.args[0] :]))
        except httptools.HttpParserError as error:
            if not self._is_discarding_input:
                self._refuse_the_rest(400, f"{NOT_READ}: {error}")
        if request and not request.has_head and request.head_size > HEAD_LIMIT:
            self._refuse_the_rest(431, HEAD_TOO_LARGE)

    def on_message_begin(self) -> None:
        if not self._is_discarding_input:
            self._reading, self.seconds = Request(), 0

    def on_url(self, part: bytes) -> None:
        if self._reading:
            self._reading.target += part

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._reading and not self._reading.has_head:  # what follows chunks is dropped
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
        self._moved += len(data)
        if request is None:
            return
        if request.refusal:
            request.dropped += len(data)
            if request.dropped > DROPPED_LIMIT:
                self.transport.abort()
            return
        request.size += len(data)
        self._host.held += len(data)
        if request.size > self._host.body_limit:
            self._refuse(request, 413, self._too_large())
        elif request.size > SMALL and self._host.held > self._host.memory:
            self._refuse(request, 503, "Other requests take the memory now; try again.")
        else:
            request.body.write(data)

    def on_message_complete(self) -> None:
        request = self._reading
        if request is None or self._upgrade or self._is_discarding_input:
            return
        self._reading, self.seconds = None, 0
        self._is_discarding_input = not request.keeps_alive
        if request.refusal:
            return  # that was answered, or waits for its turn
        if self._host.is_full and request.path != "/":
            self._refuse(request, 429, "Too many pending requests; try again later.")
        else:
            request.has_all()
            self._wait(request)

    # What becomes of a request

    def _check_head(self, request: Request) -> None:
        """Look at the head: is the body worth reading?"""
        if request.head_size > HEAD_LIMIT:
            return self._refuse_the_rest(431, HEAD_TOO_LARGE)
        if request.method == "CONNECT":
            return self._refuse_the_rest(405, "This is no proxy.")
        try:
            url = httptools.parse_url(request.target)
        except httptools.HttpParserInvalidURLError:
            return self._refuse(request, 400, "The request's target is no URL.")
        request.path = (url.path or b"/").decode("latin-1")
        request.query = (url.query or b"").decode("latin-1")
        is_open = self.is_inner or request.path == "/"
        if not is_open and not self._host.access.is_authorized(
            request.headers.get("authorization", "")
        ):
            return self._refuse(request, 401, KEY_WANTED)
        here, asked = self._host.access.deployment, request.headers.get(DEPLOYMENT)
        if not self.is_inner and here and asked not in (None, here):
            message = f"There is no deployment {asked} here. There is: {here}."
            return self._refuse(request, 404, message)
        if int(request.headers.get("content-length", 0)) > self._host.body_limit:
            return self._refuse(request, 413, self._too_large())
        if request.headers.get("expect", "").lower() == "100-continue":
            request.awaits_continue = request.version == "1.1"
            self._invite()
        return None

    def _too_large(self) -> str:
        return (
            f"The body is larger than {self._host.body_limit} bytes, which is the most that "
            "this service takes with its memory. Send smaller batches."
        )

    def _invite(self) -> None:
        """Ask for the body that a client holds back until it is asked."""
        if self._reading and self._reading.awaits_continue and not self.waiting:
            self._reading.awaits_continue = False
            self.send(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _refuse(self, request: Request, status: int, message: str) -> None:
        """Answer without the script; what still comes of the body is not kept."""
        self._host.release(request)
        request.refusal = status, message
        if "expect" in request.headers:  # will the body come or not?
            request.keeps_alive = False
        self._wait(request)

    def _refuse_the_rest(self, status: int, message: str) -> None:
        """Answer what is being read by a refusal, and look at nothing that follows it."""
        self._is_discarding_input = True
        request, self._reading = self._reading or Request(), None
        request.keeps_alive = False
        if request.refusal is None:
            self._refuse(request, status, message)
        elif request not in self.waiting:
            self._leave()

    def _ignore_upgrade(self, rest: bytes) -> None:
        """Read a request again without its wish for another protocol, as a server may."""
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
        """Answer what the script need not see, up to the first request that it must."""
        while self.waiting and (refusal := self.waiting[0].refusal):
            request = self.waiting.popleft()
            self.send(self._host.refuse(self, request, *refusal))
            if not request.keeps_alive:
                return self._leave()
        if self.waiting:
            self._host.queue(self)
        else:
            self._invite()
        return None

    def answered(self) -> None:
        """The script's answer to the first request that waits was sent."""
        self.seconds = 0
        request = self.waiting.popleft()
        self._host.release(request)
        if request.keeps_alive:
            self._next()
            self._pace()
        else:
            self._leave()

    def send(self, data: bytes) -> None:
        self._moved += len(data)
        self.transport.write(data)
        if self.unsent > SMALL and self._host.unsent > self._host.memory:
            self.transport.abort()

    def _leave(self) -> None:
        """Close, but not before a client that is still sending could read the last answer."""
        self._is_discarding_input = self._is_leaving = True
        self.seconds = 0
        if self._has_ended:
            self.transport.close()
            return
        try:
            self.transport.write_eof()
        except OSError:  # the client has gone meanwhile
            self.transport.abort()

    # Who is too slow

    @property
    def unsent(self) -> int:
        """Bytes of answers that the client has not taken yet."""
        return self.transport.get_write_buffer_size()

    def tick(self) -> None:
        """Count a second against a client that keeps us waiting, and end what takes too long."""
        moved = self._moved - self.unsent
        is_slow = moved - self._moved_before < SLOW
        self._moved_before = moved
        if self.unsent:
            limit = SLOW_SECONDS
        elif self._is_leaving:
            limit = FAREWELL_SECONDS
        elif self.waiting:
            return  # it waits for us
        elif self._reading is None:
            limit = IDLE_SECONDS if self._host.is_ours(self) else QUIET_SECONDS
        elif self._reading.has_head:
            limit = SLOW_SECONDS
        else:
            limit = HEAD_SECONDS
        self.seconds += limit != SLOW_SECONDS or is_slow
        if self.seconds <= (QUIET_SECONDS if self._host.is_draining else limit):
            return
        if self._reading and not (self.unsent or self._is_leaving):
            self._refuse_the_rest(408, f"The request did not come in time ({limit} s).")
        else:
            self.transport.abort()
