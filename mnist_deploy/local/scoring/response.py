"""The answer of Microsoft's WSGI app, within the scoring time-out."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager

from ..host import signals
from ..http.message import Request
from ..http.wsgi import Environ, WsgiApp, call_app


@contextmanager
def time_limit(timeout_ms: float) -> Iterator[None]:
    """Limit the time of ``run()``; the server raises TimeoutError when the alarm goes off."""
    signals.set_alarm(timeout_ms / 1000)
    try:
        yield
    finally:
        signals.set_alarm(0)


class TimedPieces:
    """The pieces of an answer, which have `timeout_ms` milliseconds for all of them.

    A generator that a script returns makes its pieces here, when ``run()`` has long returned.
    The server raises TimeoutError when the alarm goes off.
    """

    def __init__(self, pieces: Iterable[bytes], timeout_ms: float) -> None:
        self._pieces = iter(pieces)
        self._left = timeout_ms / 1000

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        signals.set_alarm(max(0.001, self._left))
        try:
            return next(self._pieces)
        finally:
            self._left = signals.set_alarm(0)


def answer(
    app: WsgiApp, request: Request, environ: Environ, timeout_ms: float
) -> Generator[bytes, None, bytes]:
    """The parts of the answer of `app`, as `call_app`; TimeoutError if the pieces take too long."""
    return call_app(app, request, environ, lambda pieces: TimedPieces(pieces, timeout_ms))
