"""Gives the script one request at a time, whoever else is connected."""

from __future__ import annotations

import asyncio
import bisect
import faulthandler
import io
import logging
import resource
import signal
import socket
import time
from collections import deque
from collections.abc import Callable, Generator
from typing import Any, NoReturn

from azureml_inference_server_http.server.config import config
from azureml_inference_server_http.server.entry import app

from .connection import BODY_LIMIT, Connection
from .control_channel import AccessPolicy, ControlChannel
from .response import Request, answer, refuse

RUN_LIMIT = 300  # seconds: how long Microsoft's server leaves a worker alone
STUCK = 5  # seconds beyond the scoring time-out, in which Python code would have been stopped
CONNECTIONS = 1000
BUFFER = 1 << 20  # bytes that are read from a connection at a time
LINGER = 0.25  # seconds for what a router has sent while the server is told to end
QUICK = 0.005  # seconds in which the script may be called without a look at who else has come
READING_TURNS = 8  # of the loop, in which a connection is accepted and its request read

log = logging.getLogger("azmlinfsrv")


class Server:
    """Listens, and calls Microsoft's WSGI app in the main thread.

    Where its scoring time-out works, by a signal. While it runs, nothing is read: the loop has
    its turn between two requests, and between two pieces of an answer.

    Parameters
    ----------
    control : ControlChannel
    public, inner : socket
        What to listen on; the public one as long as `control` says so.
    buckets : list of float
        Upper bounds of the durations that are counted together, in seconds.
    memory : int
        Bytes that the bodies that are kept may take, and the answers that are not taken.
    """

    def __init__(
        self,
        control: ControlChannel,
        public: socket.socket,
        inner: socket.socket | None = None,
        *,
        buckets: list[float],
        memory: int,
    ) -> None:
        self.memory = memory
        self.body_limit = min(BODY_LIMIT, memory)
        self.held = 0
        self.buffer = memoryview(bytearray(BUFFER))
        self.is_draining = self._may_end = False
        self._unconfirmed = 0
        self._control = control
        self._public, self._inner = public, inner
        self._counts = Counts(buckets)
        self._loop = asyncio.new_event_loop()
        # Microsoft's logging configuration has silenced asyncio's own logger.
        self._loop.set_exception_handler(note)
        self._connections: dict[Connection, None] = {}  # the oldest first
        self._most = min(CONNECTIONS, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2)
        self._greetings: set[asyncio.Task] = set()
        self._queue: deque[Connection] = deque()
        self._current: tuple[Connection, Request, Generator[bytes, None, bytes]] | None = None
        self._has_begun = False  # the answer that is being made
        self._is_awake = False
        self._is_quick = False  # the last answers were made within QUICK seconds
        config.scoring_timeout = min(config.scoring_timeout, RUN_LIMIT * 1000)

    @property
    def access(self) -> AccessPolicy:
        return self._control.access

    @property
    def unsent(self) -> int:
        """Bytes of answers that clients have not taken yet."""
        return sum(connection.unsent for connection in self._connections)

    @property
    def is_full(self) -> bool:
        """Whether as many requests wait or run as may."""
        most = self.access.max_pending
        return most is not None and len(self._queue) + (self._current is not None) >= most

    def run(self) -> None:
        """Serve until SIGTERM has come and what was being read or waited then is answered."""
        signal.signal(signal.SIGTERM, lambda *_: self._soon(self._drain))
        signal.signal(signal.SIGALRM, time_out)
        self._control.on_change = self._access_changed
        for listener in self._listeners():
            listener.setblocking(False)
        self._listen()
        self._tick()
        self._control.send(ready=True)
        self._loop.run_forever()
        faulthandler.cancel_dump_traceback_later()
        self._counts.send(self._control)

    def _soon(self, work: Callable[[], None]) -> None:
        """Do it when the loop has its turn: for a signal's handler, or another thread."""
        self._loop.call_soon_threadsafe(work)

    # Who comes and goes

    def _listeners(self) -> list[socket.socket]:
        return [self._public, self._inner] if self._inner else [self._public]

    def _listen(self) -> None:
        """Accept where it is ours to accept, and nowhere while draining or without room."""
        may_accept = not self.is_draining and (self._has_room() or self._find_idle() is not None)
        for listener in self._listeners():
            if may_accept and (listener is self._inner or self.access.public):
                self._loop.add_reader(listener, self._accept, listener)
            else:
                self._loop.remove_reader(listener)

    def _access_changed(self, number: int) -> None:
        """In another thread: who may come in is looked up anew for each request anyway."""
        if self.access.public:
            self._control.confirm(number)
        self._soon(lambda: self._follow_access(number))

    def _follow_access(self, number: int) -> None:
        self._listen()
        if not self.access.public:
            self._unconfirmed = number
            self._confirm_if_left()

    def _confirm_if_left(self) -> None:
        """Confirm that others answer from now on, when nobody is left whom they should answer."""
        if self._unconfirmed and all(map(self.is_ours, self._connections)):
            self._control.confirm(self._unconfirmed)
            self._unconfirmed = 0

    def is_ours(self, connection: Connection) -> bool:
        """Whether the next request on a connection is for this process to answer."""
        return not self.is_draining and (connection.is_inner or self.access.public)

    def _accept(self, listener: socket.socket) -> bool:
        """Accept one connection, so that other processes get some too; whether there was one."""
        if listener is self._public and not self.access.public:
            return False
        if not self._has_room():
            idle = self._find_idle()
            if idle is None:
                self._listen()  # no more for now
                return False
            idle.transport.abort()
            del self._connections[idle]
        try:
            client, _ = listener.accept()
        except OSError:  # another process was quicker, or the client has gone
            return False
        client.setblocking(False)
        connection = Connection(self, is_inner=listener is self._inner)
        greeting = self._loop.create_task(
            self._loop.connect_accepted_socket(lambda: connection, client)
        )
        self._greetings.add(greeting)
        greeting.add_done_callback(self._greeted)
        return True

    def _greeted(self, greeting: asyncio.Task) -> None:
        self._greetings.discard(greeting)
        greeting.exception()  # the client may have gone already

    def _has_room(self) -> bool:
        return len(self._connections) < self._most

    def _find_idle(self) -> Connection | None:
        """The connection that could best be spared for another: silent, or half a request."""
        idle = [each for each in self._connections if not (each.waiting or each.unsent)]
        return max(idle, key=lambda each: each.seconds, default=None)

    def connected(self, connection: Connection) -> None:
        self._connections[connection] = None

    def lost(self, connection: Connection) -> None:
        self._connections.pop(connection, None)
        if self._current and self._current[0] is connection:
            self._outside_the_loop(self._current[2].close)
            self._current = None
            self.wake()
        self._confirm_if_left()
        self._end_if_drained()

    def release(self, request: Request) -> None:
        """Forget a request's body."""
        self.held -= request.size
        request.size, request.body = 0, io.BytesIO()

    def _tick(self) -> None:
        """Once a second, or as soon as the loop has its turn again."""
        self._loop.call_later(1, self._tick)
        # A C function that does not return hears no signal: then this is not called in time.
        seconds = config.scoring_timeout / 1000 + STUCK
        faulthandler.dump_traceback_later(seconds, exit=True, file=2)
        for connection in list(self._connections):
            connection.tick()
        self._listen()  # perhaps there is room again
        self._end_if_drained()
        self._counts.send(self._control)

    def _drain(self) -> None:
        """Accept who has come, nobody else, and end when nothing is left to be answered."""
        self._accept_all()
        self.is_draining = True
        self._listen()
        self._loop.call_later(0 if self.access.public else LINGER, self._come_to_an_end)

    def _come_to_an_end(self) -> None:
        self._accept_all()
        self._may_end = True
        self._end_if_drained()

    def _accept_all(self) -> None:
        for listener in self._listeners():
            while self._accept(listener):
                pass

    def _end_if_drained(self) -> None:
        if self._may_end and not (self._connections or self._greetings):
            self._loop.stop()

    # The script's turn

    def queue(self, connection: Connection) -> None:
        """A connection has a request for the script."""
        self._queue.append(connection)

    def serve(self) -> None:
        """Something was read: a script that has been quick is called at once."""
        if self._queue and not self._is_awake:
            if self._is_quick:
                self._turn()
            else:
                self.wake()

    def wake(self) -> None:
        if not self._is_awake:
            self._is_awake = True
            # The loop stands still while the script runs: who has come meanwhile is read first
            # where it counts how many wait.
            self._turn_after(0 if self.access.max_pending is None else READING_TURNS)

    def _turn_after(self, turns: int) -> None:
        if turns > 0:
            self._loop.call_soon(self._turn_after, turns - 1)
        else:
            self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        """Answer for a few milliseconds, and a script that takes longer once."""
        self._is_awake = self._is_quick = False
        began = time.perf_counter()
        try:
            self._advance()
            while self._may_go_on(began) and self._queue:
                self._advance()
        finally:  # whatever became of one connection, the others have their turn
            if self._queue or (self._current and not self._current[0].is_congested):
                self.wake()

    def _may_go_on(self, began: float) -> bool:
        """Whether what waits can be answered before the loop has its turn."""
        self._is_quick = (
            self._current is None
            and self.access.max_pending is None
            and time.perf_counter() - began < QUICK
        )
        return self._is_quick

    def _advance(self) -> None:
        """Begin the next answer, or make the next piece of the one that has begun."""
        while self._current is None and self._queue:
            connection = self._queue.popleft()
            if connection.waiting:  # it is not lost
                self._begin(connection, connection.waiting[0])
        if self._current is None or self._current[0].is_congested:
            return
        connection, request, pieces = self._current
        if not self.is_ours(connection):
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
        environ = request.environ(connection.environ)
        pieces = answer(app, request, environ, config.scoring_timeout, self.access)
        self._current, self._has_begun = (connection, request, pieces), False

    def _next_piece(
        self, request: Request, pieces: Generator[bytes, None, bytes]
    ) -> tuple[bytes | None, bool]:
        """What to send next, None if the answer broke off; and whether that is all."""
        try:
            return self._outside_the_loop(pieces.__next__), False
        except StopIteration as end:
            return end.value, True
        except Exception as error:
            log.exception("The answer could not be made")
            if self._has_begun:
                return None, True
            message = "An unexpected internal error occurred. Check the logs for more info."
            if isinstance(error, TimeoutError):
                message = f"Scoring timeout after {config.scoring_timeout} ms"
            return refuse(request, 500, message), True

    def _outside_the_loop(self, work: Callable[[], Any]) -> Any:
        """Call what may be the script's, which finds no loop running and so may run one."""
        asyncio._set_running_loop(None)
        try:
            return work()
        finally:
            asyncio._set_running_loop(self._loop)

    def refuse(self, connection: Connection, request: Request, status: int, message: str) -> bytes:
        """The answer to a request that must not reach the script."""
        if not self.is_ours(connection):
            request.keeps_alive = False
        data = refuse(request, status, message)
        self._count(request)
        milliseconds = 1000 * (time.perf_counter() - request.began)
        log.info(f"{request.method} {request.path} {status} {milliseconds:.3f}ms {message}")
        return data

    def _count(self, request: Request) -> None:
        if request.path != "/":
            self._counts.add(request.status, time.perf_counter() - request.began)


def time_out(*_: object) -> NoReturn:
    raise TimeoutError


def note(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    log.error(context["message"], exc_info=context.get("exception"))


class Counts:
    """Requests since the process began, told to the container when they have changed."""

    def __init__(self, buckets: list[float]) -> None:
        self._buckets = buckets
        self._requests = self._failed = self._told = 0
        self._histogram = [0] * (len(buckets) + 1)

    def add(self, status: int, seconds: float) -> None:
        self._requests += 1
        self._failed += status >= 400
        self._histogram[bisect.bisect_left(self._buckets, seconds)] += 1

    def send(self, control: ControlChannel) -> None:
        if self._requests != self._told:
            self._told = self._requests
            control.send(requests=self._requests, failed=self._failed, histogram=self._histogram)
