"""Endpoints: addresses with their deployments; creates, changes and deletes them.

Endpoints are kept in memory and end with the control plane; only the folders of containers are on
disk. Each change is an `Operation`: the request stores the desired state and returns, then a thread
of the runtime reconciles the deployments with it.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal

from ..authorization import hash_token
from ..platforms import Platform, platform_of
from .container_spec import ContainerSpec
from .deployments import Deployment, DeploymentSpec, run_concurrently
from .faults import Failed, Fault, NotFound
from .operations import Operation, Operations
from .records import now
from .runtime import AccessPolicy, Address, Container, RoutingTable, RoutingTarget, Runtime
from .store import Store
from .telemetry import BUCKETS, Telemetry, sum_counts, summary_of

LAST_GRACE = 1.0  # seconds for the requests in flight when an endpoint is deleted


Changes = list[tuple[Deployment, int, ContainerSpec]]  # with the result of `Deployment.accept`


def new_key() -> str:
    return secrets.token_urlsafe(24)


@dataclass(frozen=True)
class EndpointSpec:
    """The desired state of an endpoint.

    Attributes
    ----------
    deployments : dict of str to DeploymentSpec
    traffic : dict of str to int
        The share of each deployment, in percent.
    mirror : dict of str to int
        The share of requests, in percent, whose copies a deployment gets.
    authentication : str
        ``none``, ``key`` or ``token``.
    primary_key, secondary_key : str
        Random by default.
    compute : str
        The name of the cluster; empty for ACI and managed online endpoints.
    other : object
        Fields that only one SDK has.
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
    """An address, and the deployments that serve there.

    Lock order: `Endpoints._lock`, `_token_lock`, `_access_lock`, `Deployment._changing`, then the
    locks of containers. `_routing_lock` is held only while the address applies a routing table:
    containers call `route` from their supervisors, so no thread may wait for a container with
    `_routing_lock` held.

    Attributes
    ----------
    kind : str
        ``service`` (SDK v1) or ``endpoint`` (SDK v2). A name is unique within its kind.
    operation : Operation
        The last change.
    """

    spec: EndpointSpec
    operation: Operation

    def __init__(self, kind: str, name: str, address: Address) -> None:
        self.kind, self.name = kind, name
        self.address, self.url = address, address.url
        self.deployments: dict[str, Deployment] = {}
        self.created = self.updated = now()
        self.telemetry = Telemetry()
        self._tokens: dict[str, float] = {}  # expiry in seconds since the epoch, by hash
        self._last_token = "", 0.0
        self._token_lock, self._access_lock = threading.Lock(), threading.Lock()
        self._routing_lock = threading.Lock()

    @property
    def platform(self) -> Platform:
        """Azure's platform, whose front end determines status codes and limits."""
        return platform_of(self.kind, self.spec.compute)

    @property
    def state(self) -> str:
        """The first of these states that a deployment has: ``Transitioning``, ``Failed``,
        ``Unhealthy``, ``Healthy``. ``Unhealthy`` without a deployment.
        """
        states = [deployment.state for deployment in self.deployments.values()]
        for state in ("Transitioning", "Failed", "Unhealthy"):
            if state in states:
                return state
        return "Healthy" if states else "Unhealthy"

    @property
    def problem(self) -> str | None:
        """The reason why no deployment serves; None if one serves, or is being restarted."""
        problems = [deployment.problem for deployment in list(self.deployments.values())]
        if not problems:
            return f"{self.name} has no deployment."
        return " ".join(filter(None, problems)) if all(problems) else None

    @property
    def usage(self) -> dict[str, Any]:
        """``requests``, ``failed``, ``p50`` and ``p95`` in seconds, None before the first one.

        The counts of a deployment are dropped when the deployment is deleted.
        """
        counts = [deployment.requests for deployment in list(self.deployments.values())]
        return summary_of(sum_counts(*counts), BUCKETS)

    @property
    def routes(self) -> RoutingTable:
        """The routing table: the desired traffic, and the state of each deployment."""
        spec = self.spec
        keys = {
            "none": None,
            "key": (spec.primary_key, spec.secondary_key),
            "token": (),
        }[spec.authentication]
        targets = {
            name: RoutingTarget(
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
        """Return a token that is valid for `seconds`, and its expiry in seconds since the epoch.

        The last token is returned again as long as it is valid for half of `seconds`, so that the
        number of valid tokens stays small.
        """
        with self._token_lock:
            now = time.time()
            token, end = self._last_token
            if now + seconds / 2 <= end <= now + seconds:
                return token, end
            token, end = self._last_token = new_key(), now + seconds
            valid = {each: expiry for each, expiry in self._tokens.items() if expiry > now}
            self._tokens = {**valid, hash_token(token): end}
            self.apply_access_policy()
            self.route()
            return token, end

    def apply_access_policy(self) -> None:
        """Apply the access policy in all containers; it is in force when the call returns."""
        with self._access_lock:
            access = self.routes.access
            for deployment in list(self.deployments.values()):
                deployment.apply_access_policy(access)

    def route(self) -> None:
        """Apply the routing table; called after each change of the endpoint or of a container."""
        with self._routing_lock:
            self.address.apply(self.routes, self.problem)

    @property
    def has_to_switch(self) -> bool:
        """Whether a router must be started or stopped."""
        return self.address.has_to_switch(self.routes)

    def switch(self) -> None:
        """Start or stop the router, as the platform of the endpoint requires."""
        self.address.switch(self.routes)
        self.route()

    def new_deployment(self, name: str) -> Deployment:
        """Create a deployment that is not part of the endpoint yet."""
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
        run_concurrently(lambda each: each.end(LAST_GRACE), list(self.deployments.values()))
        self.address.release()


class Endpoints:
    """All endpoints of the workspace.

    Lock order: `_lock`, which is held while a request stores a desired state, then the lock of the
    store. The store reads the GC root `_uploads` with its own lock held; `_uploads` takes no lock.

    Parameters
    ----------
    store : Store
        The store of the models and the uploaded scripts.
    runtime : Runtime
        The runtime of the containers.
    """

    def __init__(self, store: Store, runtime: Runtime) -> None:
        self.operations = Operations(runtime.wait)
        self.store, self.runtime = store, runtime
        self._lock = threading.RLock()
        self._endpoints: dict[tuple[str, str], Endpoint] = {}
        store.gc_roots.append(self._uploads)

    def all(self, kind: str | None = None) -> list[Endpoint]:
        found = list(self._endpoints.values())  # without `_lock`, see the lock order above
        return [endpoint for endpoint in found if kind in (None, endpoint.kind)]

    def find(self, kind: str, name: str) -> Endpoint | None:
        return self._endpoints.get((kind, name))

    def get(self, kind: str, name: str) -> Endpoint:
        endpoint = self.find(kind, name)
        if endpoint is None:
            raise NotFound(kind, name)
        return endpoint

    def using(self, model_id: str) -> list[str]:
        """The names of the endpoints that run a model, by its id ``name:version``."""
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
        """The artifacts of all container specs: a GC root of the store."""
        for endpoint in self.all():
            for deployment in endpoint.spec.deployments.values():
                yield from (upload.artifact for upload in deployment.container_spec.uploads)
                yield from (
                    path for model in deployment.container_spec.models for path in model.artifacts
                )

    def put(
        self, kind: str, name: str, function: Callable[[EndpointSpec | None], EndpointSpec]
    ) -> Operation:
        """Create or replace an endpoint.

        Parameters
        ----------
        function : callable
            Takes the present spec, or None if the endpoint does not exist; returns the desired
            spec. No other change can happen during the call. If `function` raises an exception,
            nothing changes.
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
        return self._start_change(endpoint, *change)

    def change(
        self, kind: str, name: str, function: Callable[[EndpointSpec], EndpointSpec]
    ) -> Operation:
        """Change an endpoint, as :meth:`put` does.

        Raises
        ------
        NotFound
            If the endpoint does not exist.
        """
        with self._lock:
            endpoint = self.get(kind, name)
            change = self._accept(endpoint, function(endpoint.spec))
        return self._start_change(endpoint, *change)

    def delete(self, kind: str, name: str) -> None:
        """Delete an endpoint if it exists; a change of the endpoint in progress is aborted."""
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
    ) -> tuple[Operation, Changes, list[Deployment]]:
        """Store a desired state; return the deployments to reconcile with it, and those to end."""
        deployments = {
            name: endpoint.deployments.get(name) or endpoint.new_deployment(name)
            for name in spec.deployments
        }
        endpoint.spec, endpoint.updated = spec, now()
        endpoint.operation = self.operations.begin("Service")
        removed = [name for name in endpoint.deployments if name not in spec.deployments]
        ended = [endpoint.deployments.pop(name) for name in removed]
        changed = [
            (deployments[name], number, desired.container_spec)
            for name, desired in spec.deployments.items()
            if (number := deployments[name].accept(desired))
        ]
        for deployment in deployments.values():
            # Before the containers start, because the SDK sleeps between two polls.
            for warning in deployment.new_warnings():
                endpoint.operation.add_log_line(warning)
        endpoint.deployments |= deployments
        return endpoint.operation, changed, ended

    def _start_change(
        self,
        endpoint: Endpoint,
        operation: Operation,
        changed: Changes,
        ended: list[Deployment],
    ) -> Operation:
        """Apply access policy and routing table, and reconcile the deployments in a thread."""
        endpoint.apply_access_policy()
        endpoint.route()
        if changed or ended or endpoint.has_to_switch:
            self.runtime.run(partial(self._reconcile, endpoint, operation, changed, ended))
        else:
            operation.finish()
        return operation

    def _reconcile(
        self,
        endpoint: Endpoint,
        operation: Operation,
        changed: Changes,
        ended: list[Deployment],
    ) -> None:
        """Reconcile the deployments, and finish the operation; a failed step stops no other."""
        steps: list[Callable[[], Any]] = [deployment.end for deployment in ended]
        if endpoint.routes.needs_router:
            steps.insert(0, endpoint.switch)
        for deployment, number, container_spec in changed:
            steps.append(partial(deployment.reconcile, number, container_spec))
        # A deployment that was added meanwhile may have missed a change of these.
        steps += [endpoint.apply_access_policy, endpoint.switch, endpoint.route]
        error: Fault | None = None
        for step in steps:
            try:
                step()
            except Fault as fault:
                error = fault
            except Exception as unexpected:  # for instance a full disk, or no memory left
                logging.getLogger(__name__).exception("%s could not be changed", endpoint.name)
                error = Failed("deployment", f"{type(unexpected).__name__}: {unexpected}")
        operation.finish(error)
