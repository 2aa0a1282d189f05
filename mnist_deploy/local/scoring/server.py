"""Serves Microsoft's WSGI app: many connections, one call of the script at a time."""

from __future__ import annotations

import asyncio
import faulthandler
import logging
import signal
import socket
import time
from collections import deque
from collections.abc import Callable, Collection, Generator
from hmac import compare_digest
from typing import Any, NoReturn

from azureml_inference_server_http.server import user_script, utils
from azureml_inference_server_http.server.config import config
from azureml_inference_server_http.server.entry import app

from ..authorization import CONTAINER_KEY_REQUIRED
from ..host import networking, signals
from ..http.connection import Connection, Rejection
from ..http.message import ROUTER_SECRET, Request, error_response
from ..http.server import HttpServer
from ..http.wsgi import make_environ
from ..platforms import RUN_FAILED
from .control_channel import AccessPolicy, ControlChannel
from .counts import Counts
from .response import answer, time_limit

MAX_SCORING_TIMEOUT = 300  # seconds: the limit of Microsoft's server for a worker
WATCHDOG_DELAY = 5  # seconds after the scoring time-out, which interrupts only Python code
MAX_BODY = 256 << 20  # bytes, or less with a small memory_gb
ROUTER_MARGIN = 500  # milliseconds by which the router's time-out is shorter
DRAIN_LINGER = 0.25  # seconds in which connections of a router are still accepted while draining
FAST = 0.005  # seconds in which the script may be called again before the loop runs


log = logging.getLogger("azmlinfsrv")


class ScoringServer(HttpServer):
    """Calls Microsoft's WSGI app in the main thread, where a signal implements its time-out.

    While the script runs, no connection is read: the event loop runs between two requests, and
    between two pieces of a response.

    Parameters
    ----------
    control : ControlChannel
    public : socket, optional
        The listening socket of the endpoint, used while the access policy is public.
    inner : socket, optional
        The listening socket for the router, which has authorized the requests.
    inner_secret : str
        The secret that requests of the router must carry; may be empty.
    buckets : list of float
        The upper bounds of the histogram's buckets, in seconds.
    memory : int
        The maximum of request bodies in memory, and of unsent responses, in bytes.
    """

    def __init__(
        self,
        control: ControlChannel,
        public: socket.socket | None = None,
        inner: socket.socket | None = None,
        *,
        buckets: list[float],
        memory: int,
        documented_limit: int | None = None,
        inner_secret: str = "",
    ) -> None:
        loop = networking.new_event_loop()
        super().__init__(loop, memory=memory, body_limit=min(MAX_BODY, memory))
        self._control = control
        self._public, self._inner, self._inner_secret = public, inner, inner_secret
        self._counts = Counts(buckets)
        self._documented_limit = documented_limit
        # Microsoft's logging configuration has silenced asyncio's own logger.
        self._loop.set_exception_handler(log_loop_error)
        self._queue: deque[Connection] = deque()
        self._current: tuple[Connection, Request, Generator[bytes, None, bytes]] | None = None
        self._has_begun = False  # whether a piece of the current response was sent
        self._is_scheduled = False  # a call of `_turn`
        self._is_fast = False  # the last calls took less than FAST seconds
        if not utils.timeout_supported():  # on Windows, Microsoft's server has no time-out
            user_script.timeout = time_limit
        config.scoring_timeout = min(config.scoring_timeout, MAX_SCORING_TIMEOUT * 1000)
        if public is None:  # the router's time-out, of the same length, must expire first
            config.scoring_timeout += ROUTER_MARGIN

    @property
    def access(self) -> AccessPolicy:
        return self._control.access

    def run(self) -> None:
        """Serve until SIGTERM or the message ``drain``; complete all received requests."""
        signal.signal(signal.SIGTERM, self._drain_soon)
        signals.on_alarm(raise_timeout)
        self._control.on_drain = self._drain_soon
        self._control.on_change = self._access_changed
        self._control.on_ping = self._ping
        for listener in filter(None, [self._public, self._inner]):
            listener.setblocking(False)
        self.update_listeners()
        self._control.send(ready=True)
        self._loop.run_forever()
        faulthandler.cancel_dump_traceback_later()
        self._counts.send(self._control)

    # The control channel, in its thread

    def _access_changed(self, number: int) -> None:
        """Acknowledge a new policy; it is in force already, since each request reads it."""
        self._control.confirm(number)
        self.call_soon(self.update_listeners)

    def _ping(self, number: int) -> None:
        """Acknowledge a liveness probe: at once while the script runs, otherwise from the loop."""
        if self._current is not None:
            self._control.send(pong=number)
        else:
            self.call_soon(lambda: self._answer_probe(number))

    def _answer_probe(self, number: int) -> None:
        if not self._is_exhausted:
            self._control.send(pong=number)

    # Connections

    def listeners(self) -> Collection[socket.socket]:
        public = self._public if self.access.public else None
        return [each for each in (public, self._inner) if each is not None]

    def is_inner(self, connection: Connection) -> bool:
        return connection.listener is self._inner

    def reject_head(self, connection: Connection, request: Request) -> Rejection | None:
        if self.is_inner(connection):
            return self._check_secret(request) if self._inner_secret else None
        if request.path == "/":
            return None
        if self.access.is_authorized(request.headers.get("authorization", "")):
            return None
        return 401, CONTAINER_KEY_REQUIRED

    def _check_secret(self, request: Request) -> Rejection | None:
        """Reject a request without the router's secret; remove the secret before the script."""
        secret = request.headers.pop(ROUTER_SECRET, "")
        if compare_digest(secret.encode(), self._inner_secret.encode()):
            return None
        return 401, CONTAINER_KEY_REQUIRED

    def reject_request(self, connection: Connection, request: Request) -> Rejection | None:
        """Accept every request; warn once about a body that Azure might reject."""
        limit = self._documented_limit
        if limit is not None and request.size > limit:
            self._documented_limit = None
            log.warning(
                f"A body has {request.size} bytes. Azure documents status 413 above {limit} bytes "
                "for this kind of endpoint: send smaller batches to Azure."
            )
        return None

    def lost(self, connection: Connection) -> None:
        if self._current and self._current[0] is connection:
            self._outside_the_loop(self._current[2].close)
            self._current = None
            self._schedule_turn()
        super().lost(connection)

    def tick(self) -> None:
        self._counts.send(self._control)
        self._watch()

    def _watch(self) -> None:
        """Kill the process if the loop does not run in time: C code cannot be interrupted."""
        if self._connections or self._handshakes:
            seconds = config.scoring_timeout / 1000 + WATCHDOG_DELAY
            faulthandler.dump_traceback_later(seconds, exit=True, file=2)
        else:
            faulthandler.cancel_dump_traceback_later()

    def connected(self, connection: Connection) -> None:
        if not self._connections:
            super().connected(connection)
            self._watch()
        else:
            super().connected(connection)

    def _drain_soon(self, *_: object) -> None:
        self.call_soon(self._begin_draining)

    def _begin_draining(self) -> None:
        self.drain(DRAIN_LINGER if self._public is None else 0)

    def log(self, message: str) -> None:
        log.error(message)

    # Calls of the script

    def queue(self, connection: Connection) -> None:
        self._queue.append(connection)

    def input_read(self) -> None:
        """Call a fast script at once, any other in the next iteration of the loop."""
        if self._queue and not self._is_scheduled:
            if self._is_fast:
                self._turn()
            else:
                self._schedule_turn()

    def writable(self, connection: Connection) -> None:
        self._schedule_turn()

    def _schedule_turn(self) -> None:
        if not self._is_scheduled:
            self._is_scheduled = True
            self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        """Process at least one request, and further ones for a few milliseconds."""
        self._is_scheduled = self._is_fast = False
        began = time.perf_counter()
        try:
            self._advance()
            while self._may_continue(began) and self._queue:
                self._advance()
        finally:  # an error of one connection does not affect the others
            if self._queue or (self._current and not self._current[0].is_congested):
                self._schedule_turn()

    def _may_continue(self, began: float) -> bool:
        """Whether further requests can be processed before the loop runs again."""
        self._is_fast = self._current is None and time.perf_counter() - began < FAST
        return self._is_fast

    def _advance(self) -> None:
        """Begin the next response, or send the next piece of the current one."""
        while self._current is None and self._queue:
            connection = self._queue.popleft()
            if connection.waiting:  # otherwise the client has closed the connection
                self._begin(connection, connection.waiting[0])
        if self._current is None or self._current[0].is_congested:
            return
        connection, request, pieces = self._current
        if not self.keeps(connection):
            request.keeps_alive = False
        data, is_whole = self._next_piece(request, pieces)
        if data is None:
            self._current = None
            connection.transport.abort()
            return
        connection.send(data)
        self._has_begun = True
        if is_whole:
            self._current = None
            self._count(request)
            connection.answered()

    def _begin(self, connection: Connection, request: Request) -> None:
        environ = make_environ(request, connection.environ)
        pieces = answer(app, request, environ, config.scoring_timeout)
        self._current, self._has_begun = (connection, request, pieces), False

    def _next_piece(
        self, request: Request, pieces: Generator[bytes, None, bytes]
    ) -> tuple[bytes | None, bool]:
        """Return (data, is_last); data is None if the response must be aborted."""
        try:
            return self._outside_the_loop(pieces.__next__), False
        except StopIteration as end:
            return end.value, True
        except BaseException as error:  # a script may raise SystemExit or CancelledError
            log.exception("The response could not be created")
            if self._has_begun:
                return None, True
            message = "An unexpected internal error occurred. Check the logs for more info."
            if isinstance(error, TimeoutError):
                message = f"Scoring timeout after {config.scoring_timeout} ms"
            return error_response(request, 500, message, [(RUN_FAILED, "True")]), True

    def _outside_the_loop(self, work: Callable[[], Any]) -> Any:
        """Call code of the script outside the event loop: the script may run its own loop."""
        asyncio._set_running_loop(None)
        try:
            return work()
        finally:
            asyncio._set_running_loop(self._loop)

    def error_response(
        self, connection: Connection, request: Request, status: int, message: str
    ) -> bytes:
        data = super().error_response(connection, request, status, message)
        self._count(request)
        milliseconds = 1000 * (time.perf_counter() - request.began)
        log.info(f"{request.method} {request.path} {status} {milliseconds:.3f}ms {message}")
        return data

    def _count(self, request: Request) -> None:
        if request.path != "/":
            self._counts.add(request.status, time.perf_counter() - request.began)


def raise_timeout(*_: object) -> NoReturn:
    raise TimeoutError


def log_loop_error(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    log.error(context["message"], exc_info=context.get("exception"))
