"""Client registrations: the control plane stops when its last registered client has ended."""

from __future__ import annotations

import contextlib
import threading
from typing import Annotated

import psutil
from flask import Blueprint, Response, jsonify
from msgspec import Meta, Struct

from ..bodies import body
from ..core.faults import Conflict
from ..rest import state

client_registration_api = Blueprint("client_registrations", __name__)


class ClientRegistrations:
    """The processes that use this workspace; a registration ends with its process."""

    def __init__(self) -> None:
        self._lock = threading.RLock()  # a signal handler may run while the main thread holds it
        self._clients: set[psutil.Process] = set()
        self._is_closed = False

    def add(self, pid: int) -> bool:
        """Register a process; False if the control plane is stopping, or the process has ended."""
        with self._lock, contextlib.suppress(psutil.NoSuchProcess):
            if not self._is_closed:
                self._clients.add(psutil.Process(pid))
                return True
        return False

    def close_if_unused(self) -> bool:
        """Return whether the control plane must stop: no client is left, or `close` was called."""
        with self._lock:
            self._clients = {client for client in self._clients if is_alive(client)}
            self._is_closed = self._is_closed or not self._clients
            return self._is_closed

    def close(self) -> None:
        with self._lock:
            self._is_closed = True


def is_alive(process: psutil.Process) -> bool:
    """Whether a process runs; False for a zombie, or if another process has its id now."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
    except OSError:  # the process has no free file descriptor
        return True


class RegistrationRequest(Struct):
    pid: Annotated[int, Meta(ge=2, lt=2**31)]  # process 1 never ends


@client_registration_api.post("/clients")
def register_client() -> Response:
    if not state().part(ClientRegistrations).add(body(RegistrationRequest).pid):
        raise Conflict(
            "client registration",
            "The control plane is stopping, or the process does not exist. Connect again.",
        )
    return jsonify({})


@client_registration_api.delete("/clients")
def end_registrations() -> Response:
    state().part(ClientRegistrations).close()
    return jsonify({})
