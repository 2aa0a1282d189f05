"""Serves a WSGI app on a loopback port: the listener of the control plane, and of the portal.

An event loop accepts connections and reads headers (with aiohttp's parser), so that a slow client
uses a socket and no thread. Any program on this machine can connect. Therefore a connection is
untrusted until a request on it has shown a secret of the workspace: untrusted connections are
limited in number, time and memory, and the oldest of them is closed for a new one. A request with a
secret always gets a thread: there are as many threads as trusted connections.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import logging
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

from aiohttp import web

from .host import networking
from .wsgi import AppCall, RequestStream, WsgiApp

MAX_UNTRUSTED = 200  # connections; above this number the oldest is closed
MAX_TRUSTED = min(1000, networking.MAX_SOCKETS // 2)  # connections, and so threads
UNTRUSTED_THREADS = 8  # a request without a secret is answered in milliseconds
HEAD_TIMEOUT = 15.0  # seconds from the accepting of a connection to the end of its first head
BODY_TIMEOUT = 30.0  # seconds for a body that is received as a whole
IDLE_TIMEOUT = 120.0  # seconds between two requests
MAX_WHOLE_BODY = 1 << 20  # bytes of a trusted body that is received before the app is called
MAX_UNTRUSTED_MEMORY = 64 << 20  # bytes of all bodies whose senders have shown no secret
ACCEPT_BACKOFF = 0.1  # seconds until the next attempt, if no file descriptor is left
BACKLOG = 1024  # connections that wait to be accepted
TLS_HANDSHAKE = b"\x16"  # the first byte of a TLS connection

# Returns the maximum size of a request's body in bytes if the request shows no secret, else None.
BodyLimit = Callable[[web.BaseRequest], int | None]

log = logging.getLogger(__name__)
# aiohttp's logger: with tracebacks of malformed requests, any program could fill the disk.
silent = logging.Logger("silent", logging.CRITICAL + 1)


@dataclass(eq=False)
class OpenConnection:
    """An accepted connection: the function that closes it, and the time-out of its first head."""

    close: Callable[[], object]
    deadline: asyncio.TimerHandle


class Listener:
    """Serves `app` on a listening socket until `close` is called.

    Threads: the event loop `name`, and the pools ``NAME request`` and ``NAME untrusted``. `close`
    joins the event loop; it does not wait for requests that the pools are answering.

    Parameters
    ----------
    listening : socket
        Closed by `close`.
    app : WSGI app
    body_limit : callable
        See :data:`BodyLimit`.
    tls : ssl.SSLContext, optional
        For connections that begin with a TLS handshake; all others are plain HTTP.
    name : str
        The beginning of its threads' names.
    """

    def __init__(
        self,
        listening: socket.socket,
        app: WsgiApp,
        body_limit: BodyLimit,
        *,
        tls: ssl.SSLContext | None = None,
        name: str = "listener",
    ) -> None:
        listening.setblocking(False)
        listening.listen(BACKLOG)
        self._listening = listening
        self._app = app
        self._body_limit = body_limit
        self._tls = tls
        self._loop = networking.new_event_loop()
        self._loop.set_exception_handler(log_loop_error)
        self._untrusted: dict[web.RequestHandler, OpenConnection] = {}  # the oldest first
        self._trusted: dict[web.RequestHandler, OpenConnection] = {}
        self._untrusted_memory = 0  # bytes
        self._server = Server(self._respond, self._forget, self._loop)
        self._threads = ThreadPoolExecutor(MAX_TRUSTED, f"{name} request")
        self._untrusted_threads = ThreadPoolExecutor(UNTRUSTED_THREADS, f"{name} untrusted")
        self._accepting = self._loop.create_task(self._accept())
        self._thread = threading.Thread(target=self._run, daemon=True, name=name)
        self._thread.start()

    def close(self) -> None:
        """Close every connection; requests that are being answered are not waited for."""
        self._loop.call_soon_threadsafe(self._accepting.cancel)
        self._thread.join()
        for threads in (self._threads, self._untrusted_threads):
            threads.shutdown(wait=False, cancel_futures=True)

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner, self._listening:
            runner.run(self._serve())

    async def _serve(self) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await self._accepting
        for connection in [*self._untrusted.values(), *self._trusted.values()]:
            connection.close()

    # Connections

    async def _accept(self) -> None:
        while True:
            try:
                client, _ = await self._loop.sock_accept(self._listening)
            except OSError as error:
                log.warning("No connection can be accepted: %s", error)
                await asyncio.sleep(ACCEPT_BACKOFF)
                continue
            handler = self._server()
            starting = self._loop.create_task(self._start(client, handler))
            deadline = self._loop.call_later(HEAD_TIMEOUT, self._drop, handler)
            connection = OpenConnection(starting.cancel, deadline)
            starting.add_done_callback(partial(self._started, client, handler, connection))
            self._untrusted[handler] = connection
            if len(self._untrusted) > MAX_UNTRUSTED:
                self._drop(next(iter(self._untrusted)))

    async def _start(self, client: socket.socket, handler: web.RequestHandler) -> asyncio.Transport:
        """Detect TLS by the first byte, and connect the client to `handler`."""
        if client.family == socket.AF_INET:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        tls = self._tls if self._tls and await peek(client) == TLS_HANDSHAKE else None
        transport, _ = await self._loop.connect_accepted_socket(
            lambda: handler, client, ssl=tls, ssl_shutdown_timeout=1.0 if tls else None
        )
        return transport

    def _started(
        self,
        client: socket.socket,
        handler: web.RequestHandler,
        connection: OpenConnection,
        starting: asyncio.Task[asyncio.Transport],
    ) -> None:
        if starting.cancelled() or starting.exception():  # in the handshake, or a closed connection
            client.close()
            self._forget(handler)
            return
        connection.close = starting.result().abort
        if handler not in self._untrusted and handler not in self._trusted:  # dropped meanwhile
            connection.close()

    def _drop(self, handler: web.RequestHandler) -> None:
        if connection := self._untrusted.pop(handler, None):
            connection.deadline.cancel()
            connection.close()

    def _trust(self, handler: web.RequestHandler) -> bool:
        """Make a connection a trusted one; False if there are `MAX_TRUSTED` already."""
        if handler in self._untrusted and len(self._trusted) < MAX_TRUSTED:
            self._trusted[handler] = self._untrusted.pop(handler)
        return handler in self._trusted

    def _forget(self, handler: web.RequestHandler) -> None:
        for connections in (self._untrusted, self._trusted):
            if connection := connections.pop(handler, None):
                connection.deadline.cancel()

    # Requests

    async def _respond(self, request: web.BaseRequest) -> web.StreamResponse:
        handler = request.protocol
        connection = self._untrusted.get(handler) or self._trusted.get(handler)
        if connection is None:  # the connection was dropped meanwhile
            raise ConnectionError
        connection.deadline.cancel()
        limit = self._body_limit(request)
        try:
            if limit is None:
                if not self._trust(handler):
                    raise RequestRejected(
                        503, f"{MAX_TRUSTED} connections are open, the maximum: retry later."
                    )
                body = await self._receive_trusted(request)
                return await self._call_app(request, body, self._threads)
            with self._body_buffer() as whole:
                await self._receive_untrusted(request, whole, limit)
                return await self._call_app(request, whole, self._untrusted_threads)
        except RequestRejected as rejected:
            return rejected.response

    async def _call_app(
        self, request: web.BaseRequest, body: Any, threads: ThreadPoolExecutor
    ) -> web.StreamResponse:
        call = AppCall(self._app, request, self._loop)
        return await self._loop.run_in_executor(threads, call.run, body)

    async def _receive_trusted(self, request: web.BaseRequest) -> io.IOBase:
        """Return a small body as a whole, and a large one as a stream that the app reads."""
        if not request.can_read_body:
            return io.BytesIO()
        await invite_body(request)
        if request.content_length is None or request.content_length > MAX_WHOLE_BODY:
            return io.BufferedReader(RequestStream(request, self._loop), MAX_WHOLE_BODY)
        return io.BytesIO(b"".join([piece async for piece in receive(request, MAX_WHOLE_BODY)]))

    async def _receive_untrusted(
        self, request: web.BaseRequest, whole: io.BytesIO, limit: int
    ) -> None:
        """Write a body of at most `limit` bytes to `whole`; ignore the body if `limit` is 0."""
        if not request.can_read_body or limit == 0:
            return
        await invite_body(request)
        async for piece in receive(request, limit):
            whole.write(piece)
            self._untrusted_memory += len(piece)
            if self._untrusted_memory > MAX_UNTRUSTED_MEMORY:
                raise RequestRejected(503, "Other requests use all memory for bodies: retry later.")
        whole.seek(0)

    @contextlib.contextmanager
    def _body_buffer(self) -> Iterator[io.BytesIO]:
        """A buffer for a body, whose size counts as untrusted memory while it is in use."""
        whole = io.BytesIO()
        try:
            yield whole
        finally:
            self._untrusted_memory -= whole.getbuffer().nbytes


class Server(web.Server):
    """aiohttp's server, which calls `forget` for each closed connection."""

    def __init__(
        self, respond: Any, forget: Callable[[web.RequestHandler], None], loop: Any
    ) -> None:
        super().__init__(
            respond,
            loop=loop,
            keepalive_timeout=IDLE_TIMEOUT,
            auto_decompress=False,
            access_log=None,
            logger=silent,
        )
        self._forget = forget

    def connection_lost(
        self, handler: web.RequestHandler, exc: BaseException | None = None
    ) -> None:
        super().connection_lost(handler, exc)
        self._forget(handler)


class RequestRejected(Exception):
    """Ends a request that does not reach the app."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        error = {"code": str(status), "message": message}
        self.response = web.json_response({"error": error}, status=status)
        self.response.force_close()


async def receive(request: web.BaseRequest, limit: int) -> AsyncIterator[bytes]:
    """The pieces of a body of at most `limit` bytes, as they arrive."""
    size = 0
    too_large = RequestRejected(413, f"The body of the request is larger than {limit} bytes.")
    if (request.content_length or 0) > limit:
        raise too_large
    try:
        async with asyncio.timeout(BODY_TIMEOUT):
            async for piece in request.content.iter_any():
                size += len(piece)
                if size > limit:
                    raise too_large
                yield piece
    except TimeoutError:
        raise RequestRejected(408, f"The body did not arrive within {BODY_TIMEOUT:g} s.") from None


async def invite_body(request: web.BaseRequest) -> None:
    """Send ``100 Continue`` to a client that waits for it before it sends its body."""
    if request.headers.get("Expect", "").lower() == "100-continue":
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0


async def peek(client: socket.socket) -> bytes:
    """The first byte that a client sends; it remains in the socket's buffer."""
    loop, readable = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(client, readable.set)
    try:
        await readable.wait()
    finally:
        loop.remove_reader(client)
    return client.recv(1, socket.MSG_PEEK)


def log_loop_error(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    error = context.get("exception")
    if not isinstance(error, OSError):  # a broken connection is not logged
        log.error(context["message"], exc_info=error)
