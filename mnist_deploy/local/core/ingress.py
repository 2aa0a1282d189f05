"""Selects the listener at an endpoint's address: containers, router or fallback responder."""

from __future__ import annotations

import contextlib
import json
import logging
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from typing import Any

from ..control_socket import ControlSocket
from ..host import networking, processes
from ..platforms import Platform
from .fallback_responder import FallbackResponder
from .runtime import RoutingTable, RoutingTarget

START_TIMEOUT = 20.0  # seconds for a new router to apply its first routes
APPLY_TIMEOUT = 5.0  # seconds for a router to apply later routes
PROBE_PERIOD = 10.0  # seconds between two health probes of a router
RESTART_DELAY = 1.0  # seconds before a router is restarted
DRAIN_TIMEOUT = 60.0  # seconds for a router to complete received requests
CLOSE_TIMEOUT = 2.0  # the same when the control plane ends

log = logging.getLogger(__name__)


class Ingress:
    """Passes the listening socket of an endpoint to a router, or to the fallback responder.

    Without a router, the containers of the endpoint listen at the socket.

    Lock order: `_lock`, then the lock of a `RouterProcess`.
    """

    def __init__(self, listener: socket.socket, fallback: FallbackResponder) -> None:
        self._listener = listener
        self._fallback = fallback
        self._lock = threading.Lock()
        self._router: RouterProcess | None = None
        self._draining: list[RouterProcess] = []
        self._answer: tuple[int, str] | None = None  # response of the fallback responder
        self._remove_answer: Callable[[], None] = lambda: None
        self._ended = False

    @property
    def has_router(self) -> bool:
        return self._router is not None

    def apply(self, routes: RoutingTable, problem: str | None) -> None:
        """Apply a routing table; without a router, install a fallback responder for `problem`."""
        with self._lock:
            if self._router is not None:
                self._router.send(routes)
            elif not self._ended:
                status = routes.platform.unavailable if routes.targets else 404
                self._install(None if problem is None else (status, problem))

    def start_router(self, routes: RoutingTable) -> None:
        with self._lock:
            if not self._ended:
                self._router = RouterProcess(self._listener)
                self._router.send(routes)
                self._install(None)

    def stop_router(self) -> None:
        with self._lock:
            self._drain_router()

    def end(self) -> None:
        """Stop accepting connections; the router completes received requests."""
        with self._lock:
            self._ended = True
            self._install(None)
            self._drain_router()

    def close(self) -> None:
        """Wait for the stopped routers; called after `end`."""
        for router in self._draining:
            router.close()

    def _drain_router(self) -> None:
        self._draining = [router for router in self._draining if router.is_alive]
        if self._router is not None:
            self._router.stop()
            self._draining.append(self._router)
            self._router = None

    def _install(self, answer: tuple[int, str] | None) -> None:
        if answer != self._answer:
            self._remove_answer()
            self._remove_answer = (
                self._fallback.install(self._listener, *answer) if answer else lambda: None
            )
            self._answer = answer


class RouterProcess:
    """The process of ``router.py``, restarted when it ends or does not respond to a probe.

    The constructor starts the thread ``router supervisor``. After `stop`, which does not block, the
    thread ends together with the process. `close` joins the thread.
    """

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener.dup()  # the endpoint may close its own socket earlier
        self._lock = threading.Lock()
        self._number = 0
        self._line = b""
        self._ended = threading.Event()
        self._timeout = START_TIMEOUT
        self._process = self._start()
        self._supervisor = threading.Thread(
            target=self._supervise, daemon=True, name="router supervisor"
        )
        self._supervisor.start()

    @property
    def is_alive(self) -> bool:
        return self._supervisor.is_alive()

    @property
    def pid(self) -> int:
        return self._process.pid

    def send(self, routes: RoutingTable) -> None:
        """Send routes to the router and wait until they are applied."""
        with self._lock:
            self._number += 1
            self._line = encode_routes(self._number, routes)
            self._send()

    def stop(self) -> None:
        """Start a graceful shutdown of the router, without waiting for its end."""
        self._ended.set()
        with self._lock:
            self._control.offer(drain=True)

    def close(self) -> None:
        """Wait for the end of the router after `stop`; kill the router after a time-out."""
        self._supervisor.join(CLOSE_TIMEOUT)
        if self._supervisor.is_alive():
            self._process.kill()
            self._supervisor.join()

    def _start(self) -> subprocess.Popen[bytes]:
        own, remote = socket.socketpair()
        self._control = ControlSocket(own)
        with remote:
            sockets = {"listener": self._listener, "control": remote}
            return processes.start_child("mnist_deploy.local.core.router", [], sockets)

    def _send(self) -> None:
        """Send the current line and await its acknowledgement; kill the router without one."""
        control, acknowledgement = self._control, str(self._number).encode()
        if not control.is_open:  # the router has ended: the next router gets the line
            return
        deadline = time.monotonic() + self._timeout
        control.send(self._line, self._timeout)
        while networking.wait_readable([control], max(0.0, deadline - time.monotonic())):
            if acknowledgement in control.read() or not control.is_open:
                self._timeout = APPLY_TIMEOUT
                return
        log.error("Killing a router that did not apply its routes within %g s.", self._timeout)
        self._process.kill()

    def _supervise(self) -> None:
        """Restart the router until `stop`; exceptions are logged and do not end the thread."""
        while not self._ended.is_set():
            try:
                self._await_end()
            except Exception:
                log.exception(
                    "An unexpected error in the supervision of a router, which continues."
                )
                self._ended.wait(RESTART_DELAY)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(DRAIN_TIMEOUT)
        self._process.kill()
        self._process.wait()
        self._control.close()
        self._listener.close()

    def _await_end(self) -> None:
        """Probe the router until it ends, and start the next router process."""
        try:
            status = self._process.wait(PROBE_PERIOD)
        except subprocess.TimeoutExpired:
            with self._lock:
                if not self._ended.is_set() and self._line:
                    self._send()
            return
        with self._lock:
            self._control.close()
        if self._ended.wait(RESTART_DELAY):
            return
        log.error("Restarting a router that ended with status %s.", status)
        with self._lock:
            if not self._ended.is_set():
                self._timeout = START_TIMEOUT
                self._process = self._start()
                self._send()


def encode_routes(number: int, routes: RoutingTable) -> bytes:
    """Serialize the routing table to the line that ``router.py`` reads."""
    message = {
        "number": number,
        "platform": routes.platform.name,
        "backends": {
            name: encode_target(routes.platform, each) for name, each in routes.targets.items()
        },
        "keys": routes.access.keys,
        "tokens": dict(routes.access.tokens),
    }
    return json.dumps(message).encode() + b"\n"


def encode_target(platform: Platform, target: RoutingTarget) -> dict[str, Any]:
    settings = target.requests.with_defaults(platform.defaults)
    return {
        "socket": target.socket,
        "share": target.share,
        "mirror": target.mirror,
        "problem": target.problem,
        "max_admitted": settings.max_admitted(target.instances),
        "max_running": settings.max_running(target.instances),
        "max_queue_wait": settings.max_queue_wait,
        "timeout": settings.timeout,
    }
