"""The runtime of the control plane's process: listening sockets, routers, scoring processes."""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..host import filesystem, networking
from ..platforms import Platform
from .container import ProcessContainer
from .container_folder import build_folder, script_environment
from .container_spec import ContainerSpec
from .fallback_responder import FallbackResponder
from .ingress import Ingress
from .launch import fork_server
from .runtime import RoutingTable
from .store import Store
from .telemetry import NO_TELEMETRY, Telemetry

# Followed by the control plane's pid, by which the next control plane finds the folders of a
# killed one.
TEMPORARY_PREFIX = "mnist-deploy-"

JOIN_TIMEOUT = 20.0  # seconds for the change of a deleted endpoint to end


class ProcessRuntime:
    """Runs containers as processes of this machine.

    Threads: `run` starts a thread ``endpoint change`` for each change; `close` joins them.
    Lock: `_lock` guards the list of these threads.

    Parameters
    ----------
    store : Store
        Holds the models and the uploaded scripts.
    folder : Path
        Holds a folder for each container.
    ingestion : str
        The URL to which Microsoft's server sends telemetry.
    """

    def __init__(self, store: Store, folder: Path, ingestion: str = "") -> None:
        self.store, self.folder, self.ingestion = store, folder, ingestion
        self.fallback = FallbackResponder()
        self._changes: list[threading.Thread] = []
        self._lock = threading.Lock()
        prefix = f"{TEMPORARY_PREFIX}{os.getpid()}-"
        self.sockets = Path(tempfile.mkdtemp(prefix=prefix, dir=networking.socket_folder()))

    def open_address(self, kind: str, name: str) -> ProcessAddress:
        return ProcessAddress(self, kind, name)

    def warm_up(self) -> None:
        fork_server()

    def run(self, work: Callable[[], None]) -> None:
        thread = threading.Thread(target=work, daemon=True, name="endpoint change")
        with self._lock:
            self._changes = [each for each in self._changes if each.is_alive()]
            self._changes.append(thread)
            thread.start()

    def wait(self, done: threading.Event, seconds: float) -> None:
        done.wait(seconds)

    def close(self) -> None:
        for thread in self._changes:
            thread.join(JOIN_TIMEOUT)
        self.fallback.close()
        filesystem.remove_folder(self.sockets)


class ProcessAddress:
    """A listening socket on 127.0.0.1.

    The socket stays open until the endpoint is deleted, and each process that accepts on it
    inherits it. Therefore no other program can get the port.

    Lock order: `_switching`, then the lock of the `Ingress`.
    """

    def __init__(self, runtime: ProcessRuntime, kind: str, name: str) -> None:
        self.name = name
        self.runtime = runtime
        self.listener = networking.listen(backlog=1024)
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        self._ingress = Ingress(self.listener, runtime.fallback)
        self._switching = threading.Lock()

    def add_deployment(self, name: str) -> ProcessContainerFactory:
        return ProcessContainerFactory(self)

    def apply(self, routes: RoutingTable, problem: str | None) -> None:
        self._ingress.apply(routes, problem)

    def has_to_switch(self, routes: RoutingTable) -> bool:
        return routes.needs_router != self._ingress.has_router

    def switch(self, routes: RoutingTable) -> None:
        with self._switching:
            if not self.has_to_switch(routes):
                return
            if routes.needs_router:
                self._ingress.start_router(routes)
            else:
                self._ingress.stop_router()

    def close(self) -> None:
        self._ingress.end()

    def release(self) -> None:
        """Close the port, and wait for the routers that were stopped."""
        self.listener.close()
        self._ingress.close()


class ProcessContainerFactory:
    """Creates the containers of a deployment, which accept a router's requests on one socket."""

    def __init__(self, address: ProcessAddress) -> None:
        self._address, self._runtime = address, address.runtime
        self._inner, self.socket = networking.listen_privately(self._runtime.sockets)

    def create(
        self,
        spec: ContainerSpec,
        platform: Platform,
        telemetry: Telemetry,
        on_change: Callable[[], Any],
    ) -> ProcessContainer:
        folder = build_folder(self._runtime.folder, self._runtime.store, spec)
        variables = script_environment(folder, self._address.name, spec) | NO_TELEMETRY
        if spec.insights:
            variables |= telemetry.variables(self._runtime.ingestion, folder)
        return ProcessContainer(
            folder,
            None if platform.has_front_end else self._address.listener,
            self._inner,
            inner_secret=networking.secret_of(self.socket),
            cpu_cores=spec.cpu_cores,
            memory_gb=spec.memory_gb,
            environment=variables,
            liveness=spec.liveness or platform.liveness,
            documented_limit=platform.max_body,
            on_change=on_change,
        )

    def close(self) -> None:
        networking.close_privately(self._inner, self.socket)
