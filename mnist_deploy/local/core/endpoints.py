"""Endpoints: the addresses that are served now, and how they come, change and go.

They live as long as the control plane: what is on disk is only what a container needs.
"""

from __future__ import annotations

import logging
import secrets
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from .container import BUCKETS, AccessPolicy, Container, sum_up
from .container_folder import build_folder, script_environment
from .deployments import ContainerSpec, Deployment, DeploymentSpec
from .fallback_responder import FallbackResponder
from .faults import Failed, Fault, NotFound
from .ingress import Backend, Ingress, RoutingTable
from .operations import Operation, Operations
from .records import now
from .store import Store
from .telemetry import SILENT, Telemetry, summary_of

# Where nobody serves: azure-ai-ml repeats a request four times that got 503.
UNAVAILABLE_STATUS = {"service": 503, "endpoint": 502}
MODEL_ERROR = 424  # of an endpoint whose script failed
LAST_GRACE = 1.0  # seconds for what is in flight when an endpoint is deleted


Changed = list[tuple[Deployment, ContainerSpec]]


def new_key() -> str:
    return secrets.token_urlsafe(24)


@dataclass(frozen=True)
class EndpointSpec:
    """What is wanted of an endpoint.

    Attributes
    ----------
    deployments : dict of str to DeploymentSpec
    traffic : dict of str to int
        The share of each deployment, in percent.
    mirror : dict of str to int
        The share of requests, in percent, that a deployment gets a copy of.
    authentication : str
        ``none``, ``key`` or ``token``.
    primary_key, secondary_key : str
        Drawn where none is given.
    compute : str
        The cluster that it is deployed to, if any.
    other : object
        What only one client knows of.
    """

    deployments: dict[str, DeploymentSpec] = field(default_factory=dict)
    traffic: dict[str, int] = field(default_factory=dict)
    mirror: dict[str, int] = field(default_factory=dict)
    authentication: str = "none"
    primary_key: str = field(default_factory=new_key, repr=False)
    secondary_key: str = field(default_factory=new_key, repr=False)
    description: str = ""
    tags: dict[str, str] = field(default_factory=dict)
    properties: dict[str, str] = field(default_factory=dict)
    compute: str = ""
    other: Any = None

    def with_key(self, which: Literal["Primary", "Secondary"], key: str) -> EndpointSpec:
        if which == "Primary":
            return replace(self, primary_key=key)
        return replace(self, secondary_key=key)


class Endpoint:
    """One address and what answers there.

    Attributes
    ----------
    kind : str
        ``service`` (SDK v1) or ``endpoint`` (SDK v2): each has names of its own.
    listener : socket
        Open as long as the endpoint lives, and handed to whatever answers in turn: the port is
        never free for anyone else.
    operation : Operation
        Of the last change.
    """

    spec: EndpointSpec
    operation: Operation

    def __init__(self, kind: str, name: str, fallback: FallbackResponder) -> None:
        self.kind, self.name = kind, name
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        self.deployments: dict[str, Deployment] = {}
        self.created = self.updated = now()
        self.telemetry = Telemetry()
        self._tokens: dict[str, float] = {}
        self._ingress = Ingress(self.listener, fallback, UNAVAILABLE_STATUS[kind])
        # Containers call `route`, and others wait for containers: never with `_routing_lock` held.
        self._access_lock, self._routing_lock, self._ingress_lock = (
            threading.Lock() for _ in range(3)
        )

    @property
    def state(self) -> str:
        """The worst of its deployments: ``Transitioning``, ``Failed``, ``Unhealthy``, ``Healthy``.

        ``Unhealthy`` also where there is none.
        """
        states = [deployment.state for deployment in self.deployments.values()]
        for state in ("Transitioning", "Failed", "Unhealthy"):
            if state in states:
                return state
        return "Healthy" if states else "Unhealthy"

    @property
    def problem(self) -> str | None:
        """Why nobody answers, in a sentence; None if somebody does, or is about to."""
        problems = [deployment.problem for deployment in list(self.deployments.values())]
        if not problems:
            return f"{self.name} has no deployment."
        return " ".join(filter(None, problems)) if all(problems) else None

    @property
    def usage(self) -> dict[str, Any]:
        """``requests``, ``failed``, ``p50`` and ``p95`` in seconds, None before the first one.

        Of its telemetry, where that is kept; else what its containers have counted.
        """
        if any(each.container_spec.insights for each in self.spec.deployments.values()):
            return self.telemetry.summary()
        counts = [deployment.requests for deployment in list(self.deployments.values())]
        return summary_of(sum_up(*counts), BUCKETS)

    @property
    def routes(self) -> RoutingTable:
        """What is wanted, and how the deployments are that are there."""
        spec = self.spec
        keys = {
            "none": None,
            "key": (spec.primary_key, spec.secondary_key),
            "token": (),
        }[spec.authentication]
        targets = {
            name: Backend(
                deployment.socket,
                spec.traffic.get(name, 0),
                spec.mirror.get(name, 0),
                deployment.problem,
            )
            for name, deployment in list(self.deployments.items())
        }
        tokens = dict(self._tokens) if spec.authentication == "token" else {}
        return RoutingTable(targets, AccessPolicy(keys, tokens))

    def issue_token(self, seconds: float) -> tuple[str, float]:
        """A token that opens the endpoint, and when it ends, in seconds since the epoch."""
        now = time.time()
        token, end = new_key(), now + seconds
        lasting = {each: its_end for each, its_end in self._tokens.items() if its_end > now}
        self._tokens = {**lasting, token: end}
        self.apply_access_policy()
        self.route()
        return token, end

    def apply_access_policy(self) -> None:
        """Have the containers let in who has the right: that holds when this returns."""
        with self._access_lock:
            access = replace(self.routes.access, public=not self._ingress.has_router)
            for name, deployment in list(self.deployments.items()):
                if self.kind == "endpoint":
                    access = replace(access, deployment=name, model_error=MODEL_ERROR)
                deployment.apply_access_policy(access)

    def route(self) -> None:
        """Have requests go where they should; called whenever something has changed."""
        with self._routing_lock:
            self._ingress.apply(self.routes, self.problem)

    @property
    def has_to_switch(self) -> bool:
        """Whether a router is needed and not there, or the other way round."""
        return self.routes.needs_router != self._ingress.has_router

    def switch(self) -> None:
        """Let a router accept, or the containers themselves, as it is needed now."""
        with self._ingress_lock:
            if not self.has_to_switch:
                return
            if self._ingress.has_router:
                self._ingress.stop_router(self.apply_access_policy)
            else:
                self._ingress.start_router(self.routes)
                self.apply_access_policy()
        self.route()

    def end(self) -> None:
        self._ingress.end()
        deployments = list(self.deployments.values())
        if deployments:
            with ThreadPoolExecutor(len(deployments)) as pool:
                list(pool.map(lambda each: each.end(LAST_GRACE), deployments))
        self.listener.close()


class Endpoints:
    """All endpoints of the workspace.

    Parameters
    ----------
    store : Store
        Where the models and the uploaded scripts are.
    folder : Path
        Under it every container gets a folder of its own.

    Attributes
    ----------
    ingestion : str
        The address that telemetry is sent to.
    """

    ingestion = ""

    def __init__(self, store: Store, folder: Path) -> None:
        self.operations = Operations()
        self._store = store
        self._folder = folder
        self._lock = threading.RLock()
        self._endpoints: dict[tuple[str, str], Endpoint] = {}
        self._fallback = FallbackResponder()
        # The path of a UNIX socket has room for about 100 bytes.
        parent = tempfile.gettempdir() if len(tempfile.gettempdir()) < 60 else "/tmp"
        self._sockets = Path(tempfile.mkdtemp(prefix="mnist-deploy-", dir=parent))
        store.gc_roots.append(self._uploads)

    def all(self, kind: str | None = None) -> list[Endpoint]:
        found = list(self._endpoints.values())  # without the lock: the store asks, holding its own
        return [endpoint for endpoint in found if kind in (None, endpoint.kind)]

    def find(self, kind: str, name: str) -> Endpoint | None:
        return self._endpoints.get((kind, name))

    def get(self, kind: str, name: str) -> Endpoint:
        endpoint = self.find(kind, name)
        if endpoint is None:
            raise NotFound(kind, name)
        return endpoint

    def using(self, model_id: str) -> list[str]:
        """The names of the endpoints that run this model (``name:version``)."""
        return [
            endpoint.name
            for endpoint in self.all()
            for deployment in endpoint.spec.deployments.values()
            if model_id in [model.id for model in deployment.container_spec.models]
        ]

    def on(self, compute: str) -> list[str]:
        """The names of the endpoints that are deployed to a cluster."""
        return [endpoint.name for endpoint in self.all() if endpoint.spec.compute == compute]

    def _uploads(self) -> Iterator[str]:
        """What containers may be made of again: the store must keep it."""
        for endpoint in self.all():
            for deployment in endpoint.spec.deployments.values():
                yield from (upload.artifact for upload in deployment.container_spec.uploads)
                yield from (
                    path for model in deployment.container_spec.models for path in model.artifacts
                )

    def put(
        self, kind: str, name: str, function: Callable[[EndpointSpec | None], EndpointSpec]
    ) -> Operation:
        """Make or replace an endpoint.

        Parameters
        ----------
        function : callable
            Gets the present specification, None if there is no such endpoint, and returns the
            wanted one. No other change comes between. Where it raises, nothing has changed.
        """
        with self._lock:
            endpoint = self.find(kind, name)
            spec = function(endpoint.spec if endpoint else None)
            endpoint = endpoint or Endpoint(kind, name, self._fallback)
            change = self._accept(endpoint, spec)
            self._endpoints[kind, name] = endpoint
        return self._carry_out(endpoint, *change)

    def change(
        self, kind: str, name: str, function: Callable[[EndpointSpec], EndpointSpec]
    ) -> Operation:
        """Change an endpoint, as :meth:`put` does; `NotFound` if it is not there."""
        with self._lock:
            endpoint = self.get(kind, name)
            change = self._accept(endpoint, function(endpoint.spec))
        return self._carry_out(endpoint, *change)

    def delete(self, kind: str, name: str) -> None:
        """Delete an endpoint, if it is there; one that is being deployed gives up."""
        with self._lock:
            endpoint = self._endpoints.pop((kind, name), None)
        if endpoint is not None:
            endpoint.end()

    def stop_all(self) -> None:
        for endpoint in self.all():
            self.delete(endpoint.kind, endpoint.name)
        self._fallback.close()
        shutil.rmtree(self._sockets, ignore_errors=True)

    def _accept(
        self, endpoint: Endpoint, spec: EndpointSpec
    ) -> tuple[Operation, Changed, list[Deployment]]:
        """Take what is wanted; the deployments that have to follow it, and those to end."""
        deployments = {
            name: endpoint.deployments.get(name) or self._new_deployment(endpoint, name)
            for name in spec.deployments
        }
        endpoint.spec, endpoint.updated = spec, now()
        endpoint.operation = self.operations.begin("Service")
        gone = [name for name in endpoint.deployments if name not in spec.deployments]
        ended = [endpoint.deployments.pop(name) for name in gone]
        changed = [
            (deployments[name], wanted.container_spec)
            for name, wanted in spec.deployments.items()
            if deployments[name].accept(wanted)
        ]
        endpoint.deployments |= deployments
        return endpoint.operation, changed, ended

    def _carry_out(
        self,
        endpoint: Endpoint,
        operation: Operation,
        changed: Changed,
        ended: list[Deployment],
    ) -> Operation:
        endpoint.apply_access_policy()
        endpoint.route()
        if changed or ended or endpoint.has_to_switch:
            arguments = (endpoint, operation, changed, ended)
            threading.Thread(target=self._follow, args=arguments, daemon=True).start()
        else:
            operation.finish()
        return operation

    def _follow(
        self,
        endpoint: Endpoint,
        operation: Operation,
        changed: Changed,
        ended: list[Deployment],
    ) -> None:
        steps: list[Callable[[], Any]] = [deployment.end for deployment in ended]
        if endpoint.routes.needs_router:
            steps.insert(0, endpoint.switch)
        for deployment, container_spec in changed:
            notes = container_spec.all_warnings
            for note in notes:
                if note not in deployment.reported_warnings:  # the SDK sleeps before it reads it
                    operation.add_log_line(note)
            deployment.reported_warnings = notes
            steps.append(partial(deployment.reconcile, container_spec))
        # Who came meanwhile may have missed a change.
        steps += [endpoint.apply_access_policy, endpoint.switch, endpoint.route]
        error: Fault | None = None
        for step in steps:  # each, whatever became of the others
            try:
                step()
            except Fault as fault:
                error = fault
            except Exception as mishap:  # the disk is full, the machine has no memory
                logging.getLogger(__name__).exception("%s could not be changed", endpoint.name)
                error = Failed("deployment", f"{type(mishap).__name__}: {mishap}")
        operation.finish(error)

    def _new_deployment(self, endpoint: Endpoint, name: str) -> Deployment:
        inner = socket.socket(socket.AF_UNIX)
        inner.bind(str(self._sockets / secrets.token_hex(4)))
        inner.listen(1024)

        def build(container_spec: ContainerSpec) -> Container:
            folder = build_folder(self._folder, self._store, container_spec)
            variables = script_environment(folder, endpoint.name, container_spec) | SILENT
            if container_spec.insights:
                variables |= endpoint.telemetry.variables(self.ingestion, folder)
            container = Container(
                folder,
                endpoint.listener,
                inner,
                cpu_cores=container_spec.cpu_cores,
                memory_gb=container_spec.memory_gb,
                environment=variables,
                on_change=endpoint.route,
            )
            for note in container_spec.all_warnings:
                container.log(note)
            return container

        title = name if name == endpoint.name else f"{name} of {endpoint.name}"
        return Deployment(title, build, inner)
