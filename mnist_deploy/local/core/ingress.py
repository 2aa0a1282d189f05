"""Who answers at an endpoint's address: its containers themselves, a router, or the closed sign."""

from __future__ import annotations

import contextlib
import json
import logging
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from multiprocessing.connection import wait

from .fallback_responder import FallbackResponder
from .runtime import RoutingTable

TELL_LIMIT = 20.0  # seconds until new routes count; it may only just have been started
PAUSE = 1.0  # seconds before a router that has ended is started again


class Ingress:
    """What accepts on the listening socket of an endpoint.

    Parameters
    ----------
    closed : int
        The status of an answer where nobody serves.
    """

    def __init__(self, listener: socket.socket, fallback: FallbackResponder, closed: int) -> None:
        self._listener = listener
        self._fallback = fallback
        self._unavailable_status = closed
        self._lock = threading.Lock()
        self._router: RouterProcess | None = None
        self._sign: tuple[int, str] | None = None
        self._remove: Callable[[], None] = lambda: None
        self._ended = False

    @property
    def has_router(self) -> bool:
        return self._router is not None

    def apply(self, routes: RoutingTable, problem: str | None) -> None:
        """Have it known where requests go, or why they go nowhere."""
        with self._lock:
            if self._router is not None:
                self._router.send(routes, self._unavailable_status)
            elif not self._ended:
                status = self._unavailable_status if routes.targets else 404
                self._show(None if problem is None else (status, problem))

    def start_router(self, routes: RoutingTable) -> None:
        """Put a router in the place of containers that accept themselves."""
        with self._lock:
            if not self._ended:
                self._router = RouterProcess(self._listener)
                self._router.send(routes, self._unavailable_status)
                self._show(None)

    def stop_router(self, open_containers: Callable[[], None]) -> None:
        """Let containers accept themselves again."""
        with self._lock:
            router, self._router = self._router, None
        open_containers()
        if router is not None:
            router.end()

    def end(self) -> None:
        with self._lock:
            self._ended = True
            self._show(None)
            router, self._router = self._router, None
        if router is not None:
            router.end()

    def _show(self, sign: tuple[int, str] | None) -> None:
        if sign != self._sign:
            self._remove()
            self._remove = self._fallback.install(self._listener, *sign) if sign else lambda: None
            self._sign = sign


class RouterProcess:
    """The process of ``router.py``, started again whenever it ends."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self._lock = threading.Lock()
        self._number = 0
        self._line = b""
        self._ended = threading.Event()
        self._process = self._start()
        threading.Thread(target=self._watch, daemon=True, name="router").start()

    def send(self, routes: RoutingTable, closed: int) -> None:
        """Give it routes, which count when this returns."""
        targets = {name: asdict(target) for name, target in routes.targets.items()}
        access = {"keys": routes.access.keys, "tokens": dict(routes.access.tokens)}
        with self._lock:
            self._number += 1
            message = {"number": self._number, "targets": targets, "closed": closed, **access}
            self._line = json.dumps(message).encode() + b"\n"
            self._send()

    def end(self) -> None:
        """Let it answer what it has begun; nobody waits for that."""
        self._ended.set()
        with self._lock:
            self._process.send_signal(signal.SIGTERM)

    def _start(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-m", "mnist_deploy.local.core.router", str(self._listener.fileno())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=[self._listener.fileno()],
            start_new_session=True,
        )

    def _send(self) -> None:
        process, told = self._process, f"{self._number}\n".encode()
        assert process.stdin is not None
        assert process.stdout is not None
        if process.stdin.closed:  # it has ended: it is told when it is back
            return
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(self._line)
            process.stdin.flush()
        give_up_at = time.monotonic() + TELL_LIMIT
        while wait([process.stdout.fileno()], max(0.0, give_up_at - time.monotonic())):
            if process.stdout.readline() in (told, b""):
                return
        logging.getLogger(__name__).error("a router does not follow its routes")
        process.kill()

    def _watch(self) -> None:
        while True:
            status = self._process.wait()
            with self._lock:
                for pipe in (self._process.stdin, self._process.stdout):
                    assert pipe is not None
                    with contextlib.suppress(BrokenPipeError):
                        pipe.close()
            if self._ended.wait(PAUSE):
                return
            logging.getLogger(__name__).error("a router ended with status %s", status)
            with self._lock:
                if self._ended.is_set():
                    return
                self._process = self._start()
                self._send()
