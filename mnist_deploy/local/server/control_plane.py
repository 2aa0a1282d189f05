"""The process that the SDK takes for Azure: its HTTP surface, and how long it lives.

Run as ``python -m mnist_deploy.local.server.control_plane FOLDER PORT PID``, which gives the
process PID the first lease; it ends when the last process that holds one has ended.
"""

from __future__ import annotations

import contextlib
import fcntl
import hmac
import logging
import os
import shutil
import signal
import socket
import ssl
import sys
import threading
import time
from pathlib import Path
from typing import Any

import psutil
from flask import Flask, current_app, request
from werkzeug.serving import ThreadedWSGIServer, WSGIRequestHandler

from .. import SUBSCRIPTION
from ..core.endpoints import Endpoints
from ..core.store import Store
from ..tls import Endpoint, create_server_context, create_token, derive
from ..v1 import refusal
from ..v1.artifacts import artifact_api
from ..v1.environments import environment_api
from ..v1.images import image_api
from ..v1.models import model_api
from ..v1.operations import operation_api
from ..v1.refusal import Refusal
from ..v1.services import service_api
from ..v1.workspace import workspace_api

LEASE_INTERVAL = 0.5  # seconds between two looks at who is still there


class Leases:
    """The processes that use this workspace: a lease ends with its process, however that ends."""

    def __init__(self) -> None:
        self._lock = threading.RLock()  # a signal may come while the main thread holds it
        self._holders: set[psutil.Process] = set()
        self._closed = False

    def add(self, pid: int) -> bool:
        """False if the control plane is ending already, or there is no such process."""
        with self._lock, contextlib.suppress(psutil.NoSuchProcess):
            if not self._closed:
                self._holders.add(psutil.Process(pid))
                return True
        return False

    def close_if_unused(self) -> bool:
        """Whether it is over: no holder of a lease is left, or :meth:`close` was called."""
        with self._lock:
            self._holders = {holder for holder in self._holders if is_alive(holder)}
            self._closed = self._closed or not self._holders
            return self._closed

    def close(self) -> None:
        with self._lock:
            self._closed = True


def is_alive(process: psutil.Process) -> bool:
    """Whether it is the same process still (not one that got its number), and no zombie."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def create_app(store: Store, endpoints: Endpoints, leases: Leases, token: str, host: str) -> Flask:
    """The whole HTTP surface.

    Parameters
    ----------
    token : str
        What every request must carry, but for the few URLs that hold a secret of their own.
    host : str
        Where it is served, as ``127.0.0.1:port``.
    """
    app = Flask("mnist_deploy.local")
    app.config.update(TOKEN=token, HOST=host, PREFERRED_URL_SCHEME="https")
    app.extensions.update(store=store, endpoints=endpoints, leases=leases)
    app.extensions["subscriptions"] = {SUBSCRIPTION}
    apis = (workspace_api, artifact_api, model_api, environment_api)
    for api in (*apis, image_api, operation_api, service_api):
        app.register_blueprint(api)
    app.before_request(check_token)
    refusal.install(app)
    return app


def check_token() -> None:
    """Let nothing in without the token, except where the URL itself is the secret."""
    view = request.view_args or {}
    if request.endpoint == "artifacts.blob_content" and request.method != "OPTIONS":
        return  # signed, and checked there
    if request.endpoint in ("workspace.managed_identity", "workspace.discovery"):
        purpose = "msi" if request.endpoint == "workspace.managed_identity" else "discovery"
        expected, offered = derive(current_app.config["TOKEN"], purpose), view["secret"]
    else:
        expected = current_app.config["TOKEN"]
        offered = request.headers.get("Authorization", "").removeprefix("Bearer ")
    if not hmac.compare_digest(offered.encode(), expected.encode()):
        raise Refusal(401, "AuthenticationFailed", "This is not the token of this workspace.")


class QuietHandler(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 120  # seconds that a silent connection is kept

    def log_request(self, *_: Any) -> None:
        """The log is for errors."""


class TlsServer(ThreadedWSGIServer):
    """Greets each client in its own thread, so that a silent one keeps nobody waiting."""

    daemon_threads = True
    ssl_context: ssl.SSLContext

    def finish_request(self, connection: Any, address: Any) -> None:
        connection.settimeout(10)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            with self.ssl_context.wrap_socket(connection, server_side=True) as secure:
                super().finish_request(secure, address)
        except (OSError, ssl.SSLError) as error:
            logging.getLogger(__name__).debug("connection ended: %s", error)


def run(home: Path, port: int, first_user: int) -> None:
    """Serve the workspace under `home` until nobody uses it any more."""
    runtime = home / "run"
    alive = open(runtime / "alive", "w")  # noqa: SIM115 - open, and so locked, while we live
    fcntl.flock(alive, fcntl.LOCK_EX)
    leases = Leases()
    if not leases.add(first_user):
        return
    for leftover in ("containers", "azure"):
        shutil.rmtree(runtime / leftover, ignore_errors=True)
    store = Store(home / "store")
    endpoints = Endpoints(store, runtime / "containers")
    server = TlsServer("127.0.0.1", port, None, QuietHandler)  # type: ignore[arg-type]
    server.ssl_context = create_server_context(runtime)
    host, token = f"127.0.0.1:{server.server_port}", create_token()
    server.app = create_app(store, endpoints, leases, token, host)
    signal.signal(signal.SIGTERM, lambda *_: leases.close())
    threading.Thread(target=server.serve_forever, daemon=True).start()
    Endpoint(f"https://{host}", os.getpid(), token, runtime).write()
    try:
        while not leases.close_if_unused():
            time.sleep(LEASE_INTERVAL)
    finally:
        (runtime / "endpoint.json").unlink(missing_ok=True)
        endpoints.stop_all()
        store.close()


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING)
    run(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
    os._exit(0)  # threads that still hold an answer back must not hold the process
