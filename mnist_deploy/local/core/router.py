"""The reverse proxy before the containers of an endpoint, with the rules of Azure's front end.

``python -m mnist_deploy.local.core.router`` inherits the endpoint's listening socket and a control
channel. Each line of the control channel is a routing table in JSON (see `RoutingTable`), whose
number the router sends back after applying it. The process ends with the control channel.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import socket
import sys
from collections.abc import Collection
from dataclasses import dataclass, field
from functools import partial

from ..authorization import ENDPOINT_KEY_REQUIRED, is_authorized
from ..host import networking, processes
from ..http.connection import Connection, Rejection
from ..http.message import (
    HOP_BY_HOP,
    STATUSES_WITHOUT_BODY,
    Request,
    encode_chunk,
    error_response,
    response_head,
    status_line,
)
from ..http.server import HttpServer
from ..platforms import PLATFORMS, Platform
from .backend import Backend, BackendSettings, Exchange
from .routing import DEPLOYMENT, choose_deployment

MAX_BODY = 256 << 20  # bytes
MEMORY = 1 << 30  # bytes of bodies and responses
DRAIN_LINGER = 1.0  # seconds in which connections are still accepted while draining
MAX_LINE = 64 << 20  # bytes of a routing table
MAX_MIRRORS = 64  # concurrent copies of requests


@dataclass
class RoutingTable:
    """A line of the control channel.

    Attributes
    ----------
    number : int
        Repeated in the acknowledgement.
    backends : dict of str to BackendSettings
        The deployments.
    keys : list of str or None
        Each request needs a key or a token; None disables authorization.
    tokens : dict of str to float
        The expiry of each token, in seconds since the epoch.
    """

    number: int = 0
    platform: Platform = PLATFORMS["managed"]
    backends: dict[str, BackendSettings] = field(default_factory=dict)
    keys: list[str] | None = None
    tokens: dict[str, float] = field(default_factory=dict)

    @classmethod
    def parse(cls, line: bytes) -> RoutingTable:
        fields = json.loads(line)
        backends = {name: BackendSettings(**each) for name, each in fields.pop("backends").items()}
        return cls(backends=backends, platform=PLATFORMS[fields.pop("platform")], **fields)


class Router(HttpServer):
    """Authorizes requests, limits their concurrency, and forwards them to deployments."""

    allows_half_close = False  # as in Envoy: a disconnected client occupies no slot

    def __init__(self, loop: asyncio.AbstractEventLoop, listener: socket.socket) -> None:
        super().__init__(loop, memory=MEMORY, body_limit=MAX_BODY)
        listener.setblocking(False)
        self._listener = listener
        self.routes = RoutingTable()
        self._backends: dict[str, Backend] = {}
        self._exchanges: dict[Connection, Exchange] = {}
        self._mirrors: set[Exchange] = set()

    def apply(self, routes: RoutingTable) -> None:
        """Use new routes; pending requests to an unavailable deployment get an error response.

        The containers of a deleted deployment still answer the requests that they run.
        """
        self.routes = routes
        unavailable = routes.platform.unavailable
        for name in self._backends.keys() - routes.backends.keys():
            self._backends.pop(name).fail_waiting(unavailable, f"Deployment {name} was deleted.")
        for name, settings in routes.backends.items():
            backend = self._backends.setdefault(name, Backend(settings))
            backend.settings = settings
            if settings.problem is not None:
                backend.fail_all(unavailable, settings.problem)
            backend.run_waiting()
        self.update_listeners()

    # Called by the connections

    def listeners(self) -> Collection[socket.socket]:
        return [self._listener] if self.routes.number else []

    def reject_head(self, connection: Connection, request: Request) -> Rejection | None:
        routes = self.routes
        authorization = request.headers.get("authorization", "")
        if request.path != "/" and not is_authorized(authorization, routes.keys, routes.tokens):
            return 401, ENDPOINT_KEY_REQUIRED
        return None

    def reject_request(self, connection: Connection, request: Request) -> Rejection | None:
        try:
            shares = {name: each.share for name, each in self.routes.backends.items()}
            name = choose_deployment(shares, request.headers.get(DEPLOYMENT))
        except LookupError as error:
            return 404, error.args[0]
        backend = self._backends[name]
        if backend.settings.problem is not None:
            return self.routes.platform.unavailable, backend.settings.problem
        if not backend.admit(request):
            return self.routes.platform.overload, (
                f"Too many pending requests: {name} admits {backend.settings.max_admitted} at "
                "once, twice the concurrent requests of all its instances. Try again later."
            )
        request.context = name, backend
        return None

    def queue(self, connection: Connection) -> None:
        request = connection.waiting[0]
        name, backend = request.context
        self._exchanges[connection] = exchange = Exchange(
            self._loop,
            backend,
            head := self._forwarded_head(request),
            body := request.body.getvalue(),
            ForwardedAnswer(self, connection, request, name),
            is_bodiless=request.method == "HEAD",
        )
        exchange.start()
        if DEPLOYMENT not in request.headers:
            self._mirror(backend, head, body)

    def _forwarded_head(self, request: Request) -> bytes:
        lines = [f"{request.method} {request.target.decode('latin-1')} HTTP/1.1"]
        lines += [
            f"{name}: {value}"
            for name, value in request.headers.items()
            if name not in HOP_BY_HOP and name not in ("content-length", "expect")
        ]
        if request.size or request.method not in ("GET", "HEAD", "OPTIONS"):
            lines.append(f"content-length: {request.size}")
        return "\r\n".join([*lines, "connection: close", "\r\n"]).encode("latin-1")

    def writable(self, connection: Connection) -> None:
        if connection in self._exchanges:
            self._exchanges[connection].resume_reading()

    def release(self, request: Request) -> None:
        if request.context is not None:
            request.context[1].release(request)
            request.context = None
        super().release(request)

    def lost(self, connection: Connection) -> None:
        exchange = self._exchanges.pop(connection, None)
        if exchange is not None:
            exchange.cancel()
        super().lost(connection)

    def pause_container(self, connection: Connection) -> None:
        """Pause reading a response while the client does not read it."""
        self._exchanges[connection].pause_reading()

    def finish(self, connection: Connection) -> None:
        """Process the next request after a complete response."""
        del self._exchanges[connection]
        connection.answered()

    def log(self, message: str) -> None:
        print(message, file=sys.stderr, flush=True)

    # Copies of requests for deployments with a share of mirrored traffic

    def _mirror(self, chosen: Backend, head: bytes, body: bytes) -> None:
        for backend in self._backends.values():
            settings = backend.settings
            drawn = settings.problem is None and random.uniform(0, 100) < settings.mirror
            if drawn and backend is not chosen and len(self._mirrors) < MAX_MIRRORS:
                receiver = DiscardedAnswer(self._mirrors)
                receiver.exchange = Exchange(self._loop, backend, head, body, receiver)
                self._mirrors.add(receiver.exchange)
                receiver.exchange.start()


class ForwardedAnswer:
    """Writes a container's response to the client, with the status that the platform assigns."""

    def __init__(
        self, router: Router, connection: Connection, request: Request, deployment: str
    ) -> None:
        self._router = router
        self._connection = connection
        self._request = request
        self._own = [(DEPLOYMENT, deployment)]
        self._parts: list[bytes] = []
        self._has_begun = self._is_chunked = False

    def head(self, status: int, reason: str, headers: list[tuple[str, str]]) -> None:
        request = self._request
        if not self._router.keeps(self._connection):
            request.keeps_alive = False
        lower = {name.lower(): value for name, value in headers}
        request.status, added = self._router.routes.platform.translate_answer(status, lower)
        line = f"{status} {reason}" if status == request.status else status_line(request.status)
        own = [*self._own, *added.items()]
        if status in STATUSES_WITHOUT_BODY and status != request.status:
            own.append(("Content-Length", "0"))
        elif "transfer-encoding" in lower and request.version == "1.0":
            request.keeps_alive = False  # the end of the connection ends the response
        else:
            self._is_chunked = "transfer-encoding" in lower and request.method != "HEAD"
        head = response_head(request, line, [*headers, *own], is_chunked=self._is_chunked)
        self._parts.append(head)

    def piece(self, data: bytes) -> None:
        self._parts.append(encode_chunk(data) if self._is_chunked else data)

    def flush(self) -> None:
        if self._parts:
            self._has_begun = True
            data, self._parts = b"".join(self._parts), []
            self._connection.send(data)
            if self._connection.is_congested:
                self._router.pause_container(self._connection)

    def done(self) -> None:
        if self._is_chunked:
            self._parts.append(encode_chunk(b""))
        self.flush()
        self._router.finish(self._connection)

    def failed(self, status: int, message: str) -> None:
        if self._has_begun:  # an incomplete response must not appear complete
            self._connection.transport.abort()
            return
        if not self._router.keeps(self._connection):
            self._request.keeps_alive = False
        self._connection.send(error_response(self._request, status, message, self._own))
        self._router.finish(self._connection)

    def overloaded(self, message: str) -> None:
        self.failed(self._router.routes.platform.overload, message)

    def timed_out(self, message: str) -> None:
        self.failed(self._router.routes.platform.timeout, message)


class DiscardedAnswer:
    """Discards the response to a mirrored request; only the container's log records it."""

    exchange: Exchange

    def __init__(self, mirrors: set[Exchange]) -> None:
        self._mirrors = mirrors

    def head(self, status: int, reason: str, headers: list[tuple[str, str]]) -> None:
        pass

    def piece(self, data: bytes) -> None:
        pass

    def flush(self) -> None:
        pass

    def done(self) -> None:
        self._mirrors.discard(self.exchange)

    def failed(self, status: int, message: str) -> None:
        self.done()

    def overloaded(self, message: str) -> None:
        self.done()

    def timed_out(self, message: str) -> None:
        self.done()


async def read_control(router: Router, control: socket.socket) -> None:
    """Apply each line until the control channel ends with the control plane."""
    lines, answers = await asyncio.open_connection(sock=control, limit=MAX_LINE)
    while line := await lines.readline():
        if "drain" in json.loads(line):
            router.drain(DRAIN_LINGER)
            continue
        routes = RoutingTable.parse(line)
        router.apply(routes)
        answers.write(f"{routes.number}\n".encode())
    os._exit(0)


def main() -> None:
    """Route until the control channel ends or, after ``drain``, all requests are complete."""
    sockets = processes.take_sockets()
    loop = networking.new_event_loop()
    asyncio.set_event_loop(loop)
    router = Router(loop, sockets["listener"])
    drain = partial(router.drain, DRAIN_LINGER)
    signal.signal(signal.SIGTERM, lambda *_: router.call_soon(drain))
    reading = loop.create_task(read_control(router, sockets["control"]))
    loop.run_forever()
    reading.cancel()


if __name__ == "__main__":
    main()
