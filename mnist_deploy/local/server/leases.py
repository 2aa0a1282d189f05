"""Who uses this workspace: the control plane lives as long as somebody holds a lease."""

from __future__ import annotations

import contextlib
import threading
from typing import Annotated

import psutil
from flask import Blueprint, Response, current_app, jsonify
from msgspec import Meta, Struct

from ..bodies import body
from ..core.faults import Conflict

lease_api = Blueprint("leases", __name__)


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
    except OSError:  # no file descriptor is left to look with
        return True


class AskedLease(Struct):
    pid: Annotated[int, Meta(ge=2, lt=2**31)]  # process 1 never ends


@lease_api.post("/leases")
def add_lease() -> Response:
    if not current_app.extensions["leases"].add(body(AskedLease).pid):
        raise Conflict("lease", "This control plane is ending, or there is no such process.")
    return jsonify({})


@lease_api.delete("/leases")
def end_leases() -> Response:
    current_app.extensions["leases"].close()
    return jsonify({})
