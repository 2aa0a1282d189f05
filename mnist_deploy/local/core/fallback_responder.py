"""Answers requests at addresses where no container serves, with a status and the reason."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Collection

from ..host import networking
from ..http.connection import Connection, Rejection
from ..http.message import Request
from ..http.server import HttpServer

MAX_CONNECTIONS = 200


class FallbackResponder:
    """Fixed answers at any number of listening sockets, all from one thread.

    A slow client costs a socket and nothing else. The thread ``fallback responder`` is started
    here and joined by `close`.
    """

    def __init__(self) -> None:
        self._loop = networking.new_event_loop()
        self._server = _FixedAnswers(self._loop)
        self._thread = threading.Thread(
            target=self._loop.run_forever, daemon=True, name="fallback responder"
        )
        self._thread.start()

    def install(self, listener: socket.socket, status: int, message: str) -> Callable[[], None]:
        """Answer the requests at `listener`, until the returned function is called.

        Parameters
        ----------
        listener : socket
            Stays open; other processes may accept on it too.
        status : int
            The HTTP status of every answer.
        message : str
            The body is ``{"message": message}``.
        """
        own = listener.dup()
        own.setblocking(False)
        self._call(lambda: self._server.install(own, (status, message)))

        def remove() -> None:
            if not self._loop.is_closed():
                self._call(lambda: self._server.remove(own))

        return remove

    def close(self) -> None:
        """Remove every answer, and close all connections."""
        self._call(self._server.close)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _call(self, function: Callable[[], None]) -> None:
        async def call() -> None:
            function()

        asyncio.run_coroutine_threadsafe(call(), self._loop).result()


class _FixedAnswers(HttpServer):
    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop, memory=0, body_limit=0, max_connections=MAX_CONNECTIONS)
        self._answers: dict[socket.socket, Rejection] = {}

    def listeners(self) -> Collection[socket.socket]:
        return self._answers.keys()

    def install(self, listener: socket.socket, answer: Rejection) -> None:
        self._answers[listener] = answer
        self.update_listeners()

    def remove(self, listener: socket.socket) -> None:
        if self._answers.pop(listener, None) is not None:
            self.update_listeners()
            listener.close()

    def close(self) -> None:
        for listener in list(self._answers):
            self.remove(listener)
        super().close()

    def reject_head(self, connection: Connection, request: Request) -> Rejection:
        request.keeps_alive = False  # another process may answer the next request
        assert connection.listener is not None
        return self._answers.get(connection.listener, (503, "The service has just changed."))
