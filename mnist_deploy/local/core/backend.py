"""The router's side of a deployment: the UNIX socket, request limits, and requests in flight."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from dataclasses import dataclass
from typing import Protocol

import httptools

from ..host import networking
from ..http.message import ROUTER_SECRET, Request

CRASHED = 502  # "Exception or crash in the run() method": Troubleshoot online endpoints


@dataclass(frozen=True)
class BackendSettings:
    """The entry of one deployment in the routing table.

    Attributes
    ----------
    socket : str
        The private address (`listen_privately`) on which the deployment's containers accept.
    share, mirror : float
        Percent of the requests that name no deployment, and of copies of these requests.
    problem : str or None
        The reason why no container serves.
    max_admitted, max_running : int or None
        The maximum number of requests that wait or run at once, and that run at once.
    max_queue_wait, timeout : float or None
        Seconds within which a request must run, and within which it must be answered.
    """

    socket: str
    share: float = 0
    mirror: float = 0
    problem: str | None = None
    max_admitted: int | None = None
    max_running: int | None = None
    max_queue_wait: float | None = None
    timeout: float | None = None


class Receiver(Protocol):
    """Receives the answer of one exchange."""

    def head(self, status: int, reason: str, headers: list[tuple[str, str]]) -> None: ...
    def piece(self, data: bytes) -> None: ...
    def flush(self) -> None:
        """Called when all data of one read was parsed."""

    def done(self) -> None: ...
    def failed(self, status: int, message: str) -> None:
        """Called when the answer is missing or incomplete."""

    def overloaded(self, message: str) -> None: ...
    def timed_out(self, message: str) -> None: ...


class Backend:
    """Admits requests to a deployment, and runs a limited number of them at once."""

    def __init__(self, settings: BackendSettings) -> None:
        self.settings = settings
        self._admitted: set[Request] = set()
        self._running: set[Exchange] = set()
        self._queue: deque[Exchange] = deque()

    def admit(self, request: Request) -> bool:
        """Count a request until `release`; False if the maximum number is admitted already."""
        limit = self.settings.max_admitted
        if limit is not None and request.path != "/":
            if len(self._admitted) >= limit:
                return False
            self._admitted.add(request)
        return True

    def release(self, request: Request) -> None:
        self._admitted.discard(request)

    def start(self, exchange: Exchange) -> None:
        """Run an exchange as soon as the limit of running requests allows it."""
        self._queue.append(exchange)
        self.run_waiting()

    def run_waiting(self) -> None:
        limit = self.settings.max_running
        while self._queue and (limit is None or len(self._running) < limit):
            exchange = self._queue.popleft()
            self._running.add(exchange)
            exchange.run()

    def remove(self, exchange: Exchange) -> None:
        """Remove an exchange that has ended, and run the next one."""
        self._running.discard(exchange)
        with contextlib.suppress(ValueError):
            self._queue.remove(exchange)
        self.run_waiting()

    def fail_waiting(self, status: int, message: str) -> None:
        for exchange in [*self._queue]:
            exchange.fail(status, message)

    def fail_all(self, status: int, message: str) -> None:
        for exchange in [*self._running, *self._queue]:
            exchange.fail(status, message)


class Exchange(asyncio.Protocol):
    """One request to a container, and its answer.

    Each exchange has a connection of its own. A persistent connection could be closed in the
    moment in which its container stops, and would send all requests to the same container.

    Parameters
    ----------
    backend : Backend
    head, body : bytes
        The encoded request.
    is_bodiless : bool
        The request is a HEAD: its answer ends with the headers, whatever Content-Length states.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        backend: Backend,
        head: bytes,
        body: bytes,
        receiver: Receiver,
        *,
        is_bodiless: bool = False,
    ) -> None:
        self._loop = loop
        self._backend = backend
        self._head, self._body = add_secret(head, backend.settings.socket), body
        self._receiver = receiver
        self._is_bodiless = is_bodiless
        self._parser = httptools.HttpResponseParser(self)
        self._reason = ""
        self._headers: list[tuple[str, str]] = []
        self._transport: asyncio.Transport | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._timers: list[asyncio.TimerHandle] = []
        self._is_complete = self._has_ended = False

    def start(self) -> None:
        settings = self._backend.settings
        if settings.timeout is not None:
            self._timers.append(self._loop.call_later(settings.timeout, self._time_out))
        if settings.max_queue_wait is not None:
            timer = self._loop.call_later(settings.max_queue_wait, self._give_up_waiting)
            self._timers.append(timer)
        self._backend.start(self)

    def run(self) -> None:
        self._connecting = self._loop.create_task(self._connect())

    def cancel(self) -> None:
        """Abandon the exchange, because the client has closed its connection."""
        self._end()

    def fail(self, status: int, message: str) -> None:
        if self._end():
            self._receiver.failed(status, message)

    def pause_reading(self) -> None:
        if self._transport is not None:
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        if self._transport is not None:
            self._transport.resume_reading()

    async def _connect(self) -> None:
        try:
            await networking.connect_privately(lambda: self, self._backend.settings.socket)
        except OSError as error:
            self.fail(CRASHED, f"The container cannot be reached: {error}")

    def _time_out(self) -> None:
        if self._end():
            self._receiver.timed_out(
                f"The request was not answered within {self._backend.settings.timeout:g} s, "
                "waiting and running together."
            )

    def _give_up_waiting(self) -> None:
        if self._connecting is None and self._end():
            self._receiver.overloaded(
                f"The request waited for {self._backend.settings.max_queue_wait:g} s without "
                "being run. Try again later."
            )

    def _end(self) -> bool:
        """Release connection, timers and queue position; False if they were released before."""
        if self._has_ended:
            return False
        self._has_ended = True
        for timer in self._timers:
            timer.cancel()
        if self._transport is not None:
            self._transport.abort()
        elif self._connecting is not None:
            self._connecting.cancel()
        self._backend.remove(self)
        return True

    # Called by the transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        if self._has_ended:
            transport.abort()
            return
        transport.write(self._head + self._body if len(self._body) < 65536 else self._head)
        if len(self._body) >= 65536:
            transport.write(self._body)

    def data_received(self, data: bytes) -> None:
        if self._has_ended:
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self.fail(CRASHED, f"The container's answer cannot be read: {error}")
            return
        if self._is_complete:
            self._end()
            self._receiver.done()
        else:
            self._receiver.flush()

    def connection_lost(self, error: Exception | None) -> None:
        self.fail(CRASHED, "The container ended before it had answered.")

    # Called by the parser

    def on_status(self, reason: bytes) -> None:
        self._reason += reason.decode("latin-1")

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name.decode("latin-1"), value.decode("latin-1")))

    def on_headers_complete(self) -> None:
        self._receiver.head(self._parser.get_status_code(), self._reason, self._headers)
        self._is_complete = self._is_bodiless

    def on_body(self, data: bytes) -> None:
        if not self._is_complete:
            self._receiver.piece(data)

    def on_message_complete(self) -> None:
        self._is_complete = True


def add_secret(head: bytes, address: str) -> bytes:
    """Add the header by which a container recognizes a router, where the system needs one."""
    secret = networking.secret_of(address)
    if not secret:
        return head
    return head.removesuffix(b"\r\n") + f"{ROUTER_SECRET}: {secret}\r\n\r\n".encode()
