"""Endpoints: the addresses that are served now, and how they come, change and go.

They live as long as the control plane: what is on disk is only what a container needs.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal

from ..authorization import hash_token
from ..platforms import Platform, platform_of
from .container_spec import ContainerSpec
from .deployments import Deployment, DeploymentSpec
from .faults import Failed, Fault, NotFound
from .operations import Operation, Operations
from .records import now
from .runtime import AccessPolicy, Address, Backend, Container, RoutingTable, Runtime
from .store import Store
from .telemetry import BUCKETS, Telemetry, sum_counts, summary_of

LAST_GRACE = 1.0  # seconds for what is in flight when an endpoint is deleted


Changed = list[tuple[Deployment, int, ContainerSpec]]


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
    operation : Operation
        Of the last change.
    """

    spec: EndpointSpec
    operation: Operation

    def __init__(self, kind: str, name: str, address: Address) -> None:
        self.kind, self.name = kind, name
        self.address, self.url = address, address.url
        self.deployments: dict[str, Deployment] = {}
        self.created = self.updated = now()
        self.telemetry = Telemetry()
        self._tokens: dict[str, float] = {}  # when each expires, by its hash
        self._last_token = "", 0.0
        self._token_lock = threading.Lock()  # before `_access_lock`
        # Containers call `route`, and others wait for containers: never with `_routing_lock` held.
        self._access_lock, self._routing_lock = threading.Lock(), threading.Lock()

    @property
    def platform(self) -> Platform:
        """Of Azure: its front end decides about status codes and limits."""
        return platform_of(self.kind, self.spec.compute)

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
        """Why no deployment answers, in a sentence; None if one answers, or is restarted."""
        problems = [deployment.problem for deployment in list(self.deployments.values())]
        if not problems:
            return f"{self.name} has no deployment."
        return " ".join(filter(None, problems)) if all(problems) else None

    @property
    def usage(self) -> dict[str, Any]:
        """``requests``, ``failed``, ``p50`` and ``p95`` in seconds, None before the first one.

        Its containers count; a container that is replaced takes its counts with it.
        """
        counts = [deployment.requests for deployment in list(self.deployments.values())]
        return summary_of(sum_counts(*counts), BUCKETS)

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
                deployment.spec.requests,
                deployment.spec.replicas,
            )
            for name, deployment in list(self.deployments.items())
        }
        tokens = dict(self._tokens) if spec.authentication == "token" else {}
        return RoutingTable(self.platform, targets, AccessPolicy(keys, tokens))

    def issue_token(self, seconds: float) -> tuple[str, float]:
        """Issue a token; returns it and when it expires, in seconds since the epoch.

        The last token is returned again while it is valid for at least half that time, so that
        the number of valid tokens stays small.
        """
        with self._token_lock:
            now = time.time()
            token, end = self._last_token
            if now + seconds / 2 <= end <= now + seconds:
                return token, end
            token, end = self._last_token = new_key(), now + seconds
            valid = {each: its_end for each, its_end in self._tokens.items() if its_end > now}
            self._tokens = {**valid, hash_token(token): end}
            self.apply_access_policy()
            self.route()
            return token, end

    def apply_access_policy(self) -> None:
        """Apply the access policy in all containers; it is in effect when this returns."""
        with self._access_lock:
            access = self.routes.access
            for deployment in list(self.deployments.values()):
                deployment.apply_access_policy(access)

    def route(self) -> None:
        """Have requests go where they should; called whenever something has changed."""
        with self._routing_lock:
            self.address.apply(self.routes, self.problem)

    @property
    def has_to_switch(self) -> bool:
        """Whether a router is needed and not there, or the other way round."""
        return self.address.has_to_switch(self.routes)

    def switch(self) -> None:
        """Have a router accept, or the containers themselves, as the routes need."""
        self.address.switch(self.routes)
        self.route()

    def new_deployment(self, name: str) -> Deployment:
        """Make a deployment that is not part of the endpoint yet."""
        factory = self.address.add_deployment(name)

        def create(spec: ContainerSpec) -> Container:
            container = factory.create(spec, self.platform, self.telemetry, self.route)
            for warning in spec.all_warnings:
                container.log(warning)
            return container

        title = name if name == self.name else f"{name} of {self.name}"
        return Deployment(title, factory.socket, create, factory.close)

    def end(self) -> None:
        self.address.close()
        deployments = list(self.deployments.values())
        if deployments:
            with ThreadPoolExecutor(len(deployments)) as pool:
                list(pool.map(lambda each: each.end(LAST_GRACE), deployments))
        self.address.release()


class Endpoints:
    """All endpoints of the workspace.

    Parameters
    ----------
    store : Store
        Where the models and the uploaded scripts are.
    runtime : Runtime
        What runs the containers.
    """

    def __init__(self, store: Store, runtime: Runtime) -> None:
        self.operations = Operations(runtime.wait)
        self.store, self.runtime = store, runtime
        self._lock = threading.RLock()
        self._endpoints: dict[tuple[str, str], Endpoint] = {}
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
            is_new = endpoint is None
            endpoint = endpoint or Endpoint(kind, name, self.runtime.open_address(kind, name))
            try:
                change = self._accept(endpoint, spec)
            except BaseException:
                if is_new:
                    endpoint.end()
                raise
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
        self.runtime.close()

    def _accept(
        self, endpoint: Endpoint, spec: EndpointSpec
    ) -> tuple[Operation, Changed, list[Deployment]]:
        """Take what is wanted; the deployments that have to follow it, and those to end."""
        deployments = {
            name: endpoint.deployments.get(name) or endpoint.new_deployment(name)
            for name in spec.deployments
        }
        endpoint.spec, endpoint.updated = spec, now()
        endpoint.operation = self.operations.begin("Service")
        gone = [name for name in endpoint.deployments if name not in spec.deployments]
        ended = [endpoint.deployments.pop(name) for name in gone]
        changed = [
            (deployments[name], change, wanted.container_spec)
            for name, wanted in spec.deployments.items()
            if (change := deployments[name].accept(wanted))
        ]
        for deployment in deployments.values():
            for warning in deployment.new_warnings():  # now: the SDK sleeps before it reads them
                endpoint.operation.add_log_line(warning)
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
            self.runtime.run(partial(self._follow, endpoint, operation, changed, ended))
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
        for deployment, change, container_spec in changed:
            steps.append(partial(deployment.reconcile, change, container_spec))
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
