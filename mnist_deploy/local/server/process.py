"""The control plane's process: start, supervision of its clients, and shutdown.

Run as ``python -m mnist_deploy.local.server.process FOLDER PORT PID``. The process PID becomes the
first registered client; the control plane stops when the last registered client has ended.
"""

from __future__ import annotations

import logging
import os
import signal
import sqlite3
import sys
import tempfile
import time
from pathlib import Path
from typing import TextIO

import psutil

from ..core.endpoints import Endpoints
from ..core.faults import Full
from ..core.job_engine import JobEngine
from ..core.job_process import launch_job
from ..core.local_containers import LocalContainers
from ..core.process_runtime import TEMPORARY_PREFIX, ProcessRuntime
from ..core.profiles import Profiler
from ..core.runs import Runs
from ..core.store import Store, UnreadableStore
from ..discovery import DOCKER_SOCKET, ControlPlaneAddress
from ..host import filesystem, networking
from ..listener import Listener
from ..rest import AppState, state_of
from ..tls import create_server_context
from ..tokens import create_token
from .app import create_app
from .authentication import find_body_limit
from .client_registrations import ClientRegistrations
from .docker_api import create_docker_app, find_docker_body_limit
from .run_environment import client_environment, run_environment

REGISTRATION_CHECK_INTERVAL = 0.5  # seconds
SWEEP_INTERVAL = 60.0  # seconds between two searches for uploads that no record refers to
UPLOAD_RETENTION = 3600.0  # seconds that an upload is kept before a record refers to it

log = logging.getLogger(__name__)


def run(home: Path, port: int, first_client: int) -> None:
    """Serve the workspace under `home` until its last registered client has ended.

    Raises
    ------
    UnreadableStore
        If the store cannot be read.
    """
    runtime = home / "run"
    lock = acquire_lock(runtime)  # noqa: F841 - the open file holds the lock until `run` returns
    registrations = ClientRegistrations()
    if not registrations.add(first_client):
        return
    networking.raise_descriptor_limit()
    remove_leftovers(runtime)
    store = Store(home / "store")
    listening = networking.listen(port)
    host, token = f"127.0.0.1:{listening.getsockname()[1]}", create_token()
    containers = ProcessRuntime(store, runtime / "containers", ingestion=f"http://{host}")
    endpoints = Endpoints(store, containers)
    app = create_app(store, endpoints, registrations, token, host)
    signal.signal(signal.SIGTERM, lambda *_: registrations.close())
    tls = create_server_context(runtime)
    Listener(
        listening,
        app,
        lambda received: find_body_limit(received, token),
        tls=tls,
        name="control plane",
    )
    local_containers = LocalContainers(runtime / "local-containers")
    state_of(app).local_containers = local_containers
    docker_socket = serve_docker_api(state_of(app), containers.sockets)
    address = ControlPlaneAddress(f"https://{host}", os.getpid(), token, runtime, docker_socket)
    runs = state_of(app).part(Runs)
    runs.fail_interrupted()
    variables = client_environment(address)
    jobs = JobEngine(runs, runtime / "jobs", launch_job, run_environment(address, runs, variables))
    state_of(app).add(jobs)
    profiler = Profiler(store, endpoints, runtime / "jobs", launch_job, variables)
    profiler.fail_interrupted()
    state_of(app).add(profiler)
    address.write()
    try:
        watch(store, registrations)
    finally:
        filesystem.remove_file(runtime / "endpoint.json")
        jobs.stop()
        profiler.stop()
        local_containers.close()
        endpoints.stop_all()
        store.close()


def serve_docker_api(state: AppState, folder: Path) -> str:
    """Serve the Docker Engine API to this user's processes only; return its private address."""
    listening, address = networking.listen_privately(folder, DOCKER_SOCKET)
    secret = networking.secret_of(address)
    Listener(
        listening,
        create_docker_app(state, secret),
        lambda received: find_docker_body_limit(received, secret),
        name="docker",
    )
    return address


def acquire_lock(runtime: Path) -> TextIO:
    """Lock the file that shows whether a control plane runs, and write the process id into it."""
    lock = open(runtime / "alive", "a")  # noqa: SIM115 - closing it would release the lock
    filesystem.lock(lock)
    lock.truncate(0)
    print(os.getpid(), file=lock, flush=True)
    return lock


def remove_leftovers(runtime: Path) -> None:
    """Remove the folders of control planes, and of `exec`, that were killed."""
    for leftover in ("containers", "local-containers", "azure", "jobs", "python"):
        filesystem.remove_folder(runtime / leftover)
    for parent in {tempfile.gettempdir(), networking.socket_folder()}:
        for folder in Path(parent).glob(f"{TEMPORARY_PREFIX}*"):
            pid = folder.name.removeprefix(TEMPORARY_PREFIX).partition("-")[0]
            is_left = pid.isdecimal() and not psutil.pid_exists(int(pid))
            if is_left and filesystem.is_own_folder(folder):
                filesystem.remove_folder(folder)


def watch(store: Store, registrations: ClientRegistrations) -> None:
    """Wait until no client is registered any more; remove unreferenced uploads meanwhile."""
    swept = time.monotonic()
    while not registrations.close_if_unused():
        time.sleep(REGISTRATION_CHECK_INTERVAL)
        if time.monotonic() - swept > SWEEP_INTERVAL:
            try:
                store.sweep(UPLOAD_RETENTION)
            except (Full, OSError, sqlite3.OperationalError) as error:  # the next round retries
                log.warning("unreferenced uploads could not be removed: %s", error)
            swept = time.monotonic()


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING)
    try:
        run(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
    except UnreadableStore as error:
        sys.exit(str(error))
    os._exit(0)  # without waiting for the threads of long polls
