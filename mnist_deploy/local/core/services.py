"""The services that are deployed now, and how they come, change and go.

They live as long as the control plane: what is on disk is only what a container needs.
"""

from __future__ import annotations

import secrets
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..v1.refusal import Refusal, refusal_of
from .container import Container
from .faults import Fault
from .folder import build_folder, script_environment
from .operations import Document, Operation, failure
from .records import now
from .requirements import differences
from .store import Store


def new_key() -> str:
    return secrets.token_urlsafe(24)


class Service:
    """One service: what was asked for, its port, its keys and its container."""

    def __init__(self, request: Document) -> None:
        self.name: str = request["name"]
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        self.keys = {"primaryKey": new_key(), "secondaryKey": new_key()}
        self.container: Container | None = None
        self.models: list[Document] = []
        self.error: Document | None = None
        self.created = now()
        self.changing = threading.Lock()  # held while its container is exchanged
        self.deployment: Operation | None = None  # the last that was asked for; None if deleted
        self.accept(request)

    def accept(self, request: Document) -> Operation:
        """Take what is asked for now: at creation, at an update, when it is overwritten."""
        self.request = request
        self.keys |= {name: key for name, key in (request.get("keys") or {}).items() if key}
        self.operation = Operation("Service")
        self.updated = now()
        return self.operation

    @property
    def state(self) -> str:
        if self.deployment is not None and self.deployment.state == "Running":
            return "Transitioning"
        return self.container.state if self.container else "Failed"

    def apply_keys(self) -> None:
        if self.container is not None:
            on = self.request.get("authEnabled")
            self.container.set_keys(list(self.keys.values()) if on else None)

    def log_tail(self, lines: int) -> str:
        return self.container.log_tail(lines) if self.container else ""

    def stop(self) -> None:
        if self.container is not None:
            self.container.stop()
            self.container = None


class Services:
    """All services of the workspace.

    Parameters
    ----------
    store : Store
        Where the models and the uploaded scripts are.
    folder : Path
        Under it every container gets a folder of its own.
    """

    def __init__(self, store: Store, folder: Path) -> None:
        self._store = store
        self._folder = folder
        self._lock = threading.Lock()
        self._services: dict[str, Service] = {}
        self.operations: dict[str, Operation] = {}

    def all(self) -> list[Service]:
        with self._lock:
            return list(self._services.values())

    def find(self, name: str) -> Service | None:
        return self._services.get(name)

    def using(self, model_id: str) -> list[str]:
        """The names of the services that run this model (``name:version``)."""
        return [s.name for s in self.all() if model_id in [model["id"] for model in s.models]]

    def create(self, request: Document, recipe: Document, models: list[Document]) -> Operation:
        """Deploy a service, or replace the one of that name where ``overwrite`` was asked for."""
        name = request["name"]
        with self._lock:
            service = self._services.get(name)
            if service is None:
                service = self._services[name] = Service(request)
            elif request.get("overwrite"):
                service.accept(request)
            else:
                raise Refusal(409, "ServiceAlreadyExists", already_exists(name))
            return self._deploy(service, recipe, models)

    def update(
        self, service: Service, request: Document, recipe: Document | None, models: list[Document]
    ) -> Operation:
        """Change a service; with a new recipe its container is built anew."""
        with self._lock:
            if self._services.get(service.name) is not service:
                raise Refusal(404, "ServiceNotFound", f"{service.name} was deleted meanwhile.")
            operation = service.accept(request)
            if recipe is not None:
                return self._deploy(service, recipe, models)
            self.operations[operation.id] = operation
            service.apply_keys()
            operation.finish()
        return operation

    def delete(self, name: str) -> None:
        """Delete a service, if it is there; one that is being deployed gives up."""
        with self._lock:
            service = self._services.pop(name, None)
        if service is not None:
            self._remove(service)

    def stop_all(self) -> None:
        with self._lock:
            services, self._services = list(self._services.values()), {}
        for service in services:
            self._remove(service)

    @staticmethod
    def _remove(service: Service) -> None:
        service.deployment = None
        container = service.container
        if container is not None:
            container.stop()  # if it is starting, that ends now
        with service.changing:
            service.stop()
            service.listener.close()

    def start_operation(self, kind: str, work: Callable[[Operation], Any]) -> Operation:
        """An operation that is over at once."""
        operation = Operation(kind)
        self.operations[operation.id] = operation
        work(operation)
        operation.finish()
        return operation

    def _deploy(self, service: Service, recipe: Document, models: list[Document]) -> Operation:
        operation = service.deployment = service.operation
        service.models = models
        self.operations[operation.id] = operation
        notes = differences(recipe.get("environment") or {})
        for note in notes:
            operation.say(note)
        arguments = (service, operation, recipe, models, notes)
        threading.Thread(target=self._exchange, args=arguments, daemon=True).start()
        return operation

    def _exchange(
        self,
        service: Service,
        operation: Operation,
        recipe: Document,
        models: list[Document],
        notes: list[str],
    ) -> None:
        """Put a new container in the place of a service's old one."""
        with service.changing:
            error = None
            try:
                if service.deployment is operation:
                    service.stop()
                    container = service.container = self._build(service, recipe, models)
                    for note in notes:
                        container.log(note)
                    service.apply_keys()
                    problem = container.start() if service.deployment is operation else None
                    if problem is not None:
                        error = crashed(service, problem)
            except (Refusal, Fault) as reason:
                refusal = reason if isinstance(reason, Refusal) else refusal_of(reason)
                error = failure(refusal.code, refusal.message)
            except Exception as fault:
                error = failure("DeploymentFailed", f"{type(fault).__name__}: {fault}")
            if service.deployment is not operation:
                error = failure("Superseded", f"{service.name} was deleted or deployed anew.")
            service.error = error
            operation.finish(error)

    def _build(self, service: Service, recipe: Document, models: list[Document]) -> Container:
        folder = build_folder(self._folder, self._store, recipe, models)
        wanted = service.request["containerResourceRequirements"]
        return Container(
            folder,
            service.listener,
            cpu_cores=float(wanted["cpu"]),
            memory_gb=float(wanted["memoryInGB"]),
            environment=script_environment(folder, service.name, recipe, models),
        )


def already_exists(name: str) -> str:
    return (
        f"There is a service {name} already. Delete it, deploy with overwrite=True, or choose "
        "another name."
    )


def crashed(service: Service, problem: str) -> Document:
    return failure(
        "AciDeploymentFailed",
        f"The container of {service.name} did not start: {problem}.\n"
        + what_matters(service.log_tail(5000)),
    )


def what_matters(log: str) -> str:
    """The traceback of the script, without that of the server around it; or the last lines."""
    _, found, traceback = log.partition("Traceback (most recent call last):\n")
    around = "\n\nThe above exception was the direct cause of the following exception:\n\n"
    lines = (traceback.rpartition(around)[0] or traceback).splitlines() if found else []
    return "\n".join([found.strip(), *lines[-30:]] if found else log.splitlines()[-20:])
