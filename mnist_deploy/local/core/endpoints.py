"""Endpoints: the addresses that are served now, and how they come, change and go.

They live as long as the control plane: what is on disk is only what a container needs.
"""

from __future__ import annotations

import logging
import secrets
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .closed import ClosedSigns
from .container import Access, Container
from .deployments import Deployment, DeploymentSpec, Recipe
from .faults import Failed, Fault, NotFound
from .folder import build_folder, script_environment
from .operations import Operation, Operations
from .records import now
from .store import Store

# The status of an endpoint where nobody answers. azure-ai-ml repeats a 503 four times.
CLOSED = {"service": 503, "endpoint": 502}


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
    other: Any = None


class Endpoint:
    """One address and what answers there.

    Attributes
    ----------
    family : str
        ``service`` (SDK v1) or ``endpoint`` (SDK v2): each has names of its own.
    listener : socket
        Open as long as the endpoint lives, and handed to whatever answers in turn: the port is
        never free for anyone else.
    operation : Operation
        Of the last change.
    """

    spec: EndpointSpec
    operation: Operation

    def __init__(self, family: str, name: str, signs: ClosedSigns) -> None:
        self.family, self.name = family, name
        self._signs = signs
        self._sign: str | None = None
        self._take_down: Callable[[], None] = lambda: None
        self._routing = threading.Lock()
        self._ended = False
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        self.deployments: dict[str, Deployment] = {}
        self.created = self.updated = now()

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
    def access(self) -> Access:
        """Who is let in: anybody, or who has a key."""
        if self.spec.authentication == "none":
            return Access()
        return Access((self.spec.primary_key, self.spec.secondary_key))

    @property
    def problem(self) -> str | None:
        """Why nobody answers, in a sentence; None if somebody does, or is about to."""
        problems = [deployment.problem for deployment in self.deployments.values()]
        if not problems:
            return f"{self.name} has no deployment."
        return " ".join(filter(None, problems)) if all(problems) else None

    def route(self) -> None:
        """Have the closed sign answer here as long as there is a problem."""
        with self._routing:
            problem = None if self._ended else self.problem
            if problem != self._sign:
                self._take_down()
                self._take_down = lambda: None
                if problem is not None:
                    status = CLOSED[self.family] if self.deployments else 404
                    self._take_down = self._signs.hang(self.listener, status, problem)
                self._sign = problem

    def open_to_key_holders(self) -> None:
        """Tell whatever answers here who may come in."""
        for deployment in self.deployments.values():
            for container in deployment.containers:
                container.configure(self.access)

    def end(self) -> None:
        self._ended = True
        self.route()
        deployments = list(self.deployments.values())
        if deployments:
            with ThreadPoolExecutor(len(deployments)) as pool:
                list(pool.map(Deployment.end, deployments))
        self.listener.close()


class Endpoints:
    """All endpoints of the workspace.

    Parameters
    ----------
    store : Store
        Where the models and the uploaded scripts are.
    folder : Path
        Under it every container gets a folder of its own.
    """

    def __init__(self, store: Store, folder: Path) -> None:
        self.operations = Operations()
        self._store = store
        self._folder = folder
        self._lock = threading.RLock()
        self._endpoints: dict[tuple[str, str], Endpoint] = {}
        self._signs = ClosedSigns()
        store.holders.append(self._uploads)

    def all(self, family: str | None = None) -> list[Endpoint]:
        found = list(self._endpoints.values())  # without the lock: the store asks, holding its own
        return [endpoint for endpoint in found if family in (None, endpoint.family)]

    def find(self, family: str, name: str) -> Endpoint | None:
        return self._endpoints.get((family, name))

    def get(self, family: str, name: str) -> Endpoint:
        endpoint = self.find(family, name)
        if endpoint is None:
            raise NotFound(family, name)
        return endpoint

    def using(self, model_id: str) -> list[str]:
        """The names of the endpoints that run this model (``name:version``)."""
        return [
            endpoint.name
            for endpoint in self.all()
            for deployment in endpoint.spec.deployments.values()
            if model_id in [model.id for model in deployment.recipe.models]
        ]

    def _uploads(self) -> Iterator[str]:
        """What containers may be made of again: the store must keep it."""
        for endpoint in self.all():
            for deployment in endpoint.spec.deployments.values():
                yield from (upload.artifact for upload in deployment.recipe.uploads)
                yield from (path for model in deployment.recipe.models for path in model.artifacts)

    def put(
        self, family: str, name: str, function: Callable[[EndpointSpec | None], EndpointSpec]
    ) -> Operation:
        """Make or replace an endpoint.

        Parameters
        ----------
        function : callable
            Gets the present specification, None if there is no such endpoint, and returns the
            wanted one. No other change comes between. Where it raises, nothing has changed.
        """
        with self._lock:
            endpoint = self.find(family, name)
            spec = function(endpoint.spec if endpoint else None)
            if endpoint is None:
                endpoint = self._endpoints[family, name] = Endpoint(family, name, self._signs)
            return self._accept(endpoint, spec)

    def change(
        self, family: str, name: str, function: Callable[[EndpointSpec], EndpointSpec]
    ) -> Operation:
        """Change an endpoint, as :meth:`put` does; `NotFound` if it is not there."""
        with self._lock:
            endpoint = self.get(family, name)
            return self._accept(endpoint, function(endpoint.spec))

    def delete(self, family: str, name: str) -> None:
        """Delete an endpoint, if it is there; one that is being deployed gives up."""
        with self._lock:
            endpoint = self._endpoints.pop((family, name), None)
        if endpoint is not None:
            endpoint.end()

    def stop_all(self) -> None:
        for endpoint in self.all():
            self.delete(endpoint.family, endpoint.name)
        self._signs.close()

    def _accept(self, endpoint: Endpoint, spec: EndpointSpec) -> Operation:
        operation = self.operations.begin("Service")
        endpoint.spec, endpoint.operation, endpoint.updated = spec, operation, now()
        gone = [name for name in endpoint.deployments if name not in spec.deployments]
        ended = [endpoint.deployments.pop(name) for name in gone]
        changed: list[tuple[Deployment, Recipe]] = []
        for name, wanted in spec.deployments.items():
            deployment = endpoint.deployments.get(name)
            if deployment is None:
                deployment = endpoint.deployments[name] = self._new_deployment(endpoint, name)
            if deployment.accept(wanted):
                changed.append((deployment, wanted.recipe))
        endpoint.open_to_key_holders()
        endpoint.route()
        if changed or ended:
            arguments = (endpoint, operation, changed, ended)
            threading.Thread(target=self._follow, args=arguments, daemon=True).start()
        else:
            operation.finish()
        return operation

    def _follow(
        self,
        endpoint: Endpoint,
        operation: Operation,
        changed: list[tuple[Deployment, Recipe]],
        ended: list[Deployment],
    ) -> None:
        error: Fault | None = None
        for deployment in ended:
            deployment.end()
        for deployment, recipe in changed:
            for note in recipe.all_notes():
                operation.say(note)
            try:
                deployment.follow(recipe)
            except Fault as fault:
                error = fault
            except Exception as mishap:  # the disk is full, the machine has no memory
                logging.getLogger(__name__).exception("%s could not be deployed", deployment.title)
                error = Failed("deployment", f"{type(mishap).__name__}: {mishap}")
        endpoint.open_to_key_holders()  # also what was made while they changed
        endpoint.route()
        operation.finish(error)

    def _new_deployment(self, endpoint: Endpoint, name: str) -> Deployment:
        def build(recipe: Recipe) -> Container:
            folder = build_folder(self._folder, self._store, recipe)
            container = Container(
                folder,
                endpoint.listener,
                cpu_cores=recipe.cpu_cores,
                memory_gb=recipe.memory_gb,
                environment=script_environment(folder, endpoint.name, recipe),
                on_change=endpoint.route,
            )
            for note in recipe.all_notes():
                container.log(note)
            container.configure(endpoint.access)
            return container

        title = name if name == endpoint.name else f"{name} of {endpoint.name}"
        return Deployment(title, build)
