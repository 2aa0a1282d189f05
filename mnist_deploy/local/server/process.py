"""The process that the SDK takes for Azure: its beginning, its watch and its end.

Run as ``python -m mnist_deploy.local.server.process FOLDER PORT PID``, which gives the process PID
as the first registered client; the control plane stops when the last registered process has ended.
"""

from __future__ import annotations

import fcntl
import logging
import os
import resource
import shutil
import signal
import socket
import sqlite3
import sys
import time
from pathlib import Path
from typing import TextIO

from ..core.endpoints import Endpoints
from ..core.faults import Full
from ..core.job_engine import JobEngine
from ..core.job_process import launch_job
from ..core.process_runtime import ProcessRuntime
from ..core.runs import Runs
from ..core.store import Store, UnreadableStore
from ..discovery import Endpoint
from ..listener import Listener
from ..rest import state_of
from ..tls import create_server_context
from ..tokens import create_token
from .app import create_app
from .authentication import find_body_limit
from .client_registrations import ClientRegistrations
from .run_environment import run_environment

REGISTRATION_CHECK_INTERVAL = 0.5  # seconds between two looks at who is still there
SWEEP_INTERVAL = 60.0  # seconds between two looks for uploads that nobody needs
DESCRIPTORS = 4096  # of files: a service takes eight, and macOS gives a process 256
UPLOAD_PATIENCE = 3600.0  # seconds that an upload may wait for what refers to it


def run(home: Path, port: int, first_user: int) -> None:
    """Serve the workspace under `home` until nobody uses it any more.

    Raises
    ------
    UnreadableStore
        If what is registered there cannot be read.
    """
    runtime = home / "run"
    alive = hold(runtime)  # noqa: F841 - open, and so locked, while we live
    registrations = ClientRegistrations()
    if not registrations.add(first_user):
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(DESCRIPTORS, hard)), hard))
    for leftover in ("containers", "azure", "jobs", "python"):
        shutil.rmtree(runtime / leftover, ignore_errors=True)
    store = Store(home / "store")
    listening = socket.create_server(("127.0.0.1", port))
    host, token = f"127.0.0.1:{listening.getsockname()[1]}", create_token()
    endpoints = Endpoints(
        store, ProcessRuntime(store, runtime / "containers", ingestion=f"http://{host}")
    )
    app = create_app(store, endpoints, registrations, token, host)
    signal.signal(signal.SIGTERM, lambda *_: registrations.close())
    tls = create_server_context(runtime)
    Listener(
        listening, app, lambda asked: find_body_limit(asked, token), tls=tls, name="control plane"
    )
    endpoint = Endpoint(f"https://{host}", os.getpid(), token, runtime)
    runs = state_of(app).part(Runs)
    runs.fail_interrupted()
    jobs = JobEngine(runs, runtime / "jobs", launch_job, run_environment(endpoint, runs))
    state_of(app).add(jobs)
    endpoint.write()
    try:
        watch(store, registrations)
    finally:
        (runtime / "endpoint.json").unlink(missing_ok=True)
        jobs.stop()
        endpoints.stop_all()
        store.close()


def hold(runtime: Path) -> TextIO:
    """The file whose lock says that a control plane lives, and whose content says which."""
    alive = open(runtime / "alive", "a")  # noqa: SIM115 - closing it would let go
    fcntl.flock(alive, fcntl.LOCK_EX)
    alive.truncate(0)
    print(os.getpid(), file=alive, flush=True)
    return alive


def watch(store: Store, registrations: ClientRegistrations) -> None:
    """Wait until nobody uses it any more, and tidy up meanwhile."""
    swept = time.monotonic()
    while not registrations.close_if_unused():
        time.sleep(REGISTRATION_CHECK_INTERVAL)
        if time.monotonic() - swept > SWEEP_INTERVAL:
            try:
                store.sweep(UPLOAD_PATIENCE)
            except (Full, OSError, sqlite3.OperationalError) as error:  # another time
                logging.getLogger(__name__).warning("no upload could be removed: %s", error)
            swept = time.monotonic()


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING)
    try:
        run(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
    except UnreadableStore as error:
        sys.exit(f"{error}. To begin anew: python -m mnist_deploy.local wipe")
    os._exit(0)  # threads that still hold an answer back must not hold the process
