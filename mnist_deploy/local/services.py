"""The services that are deployed now, and the long-running operations that deploy them.

They live as long as the control plane: what is on disk is only what a container needs.
"""

from __future__ import annotations

import secrets
import socket
import threading
import uuid
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from .container import Container
from .container_folder import build_folder, script_environment
from .refusal import Refusal
from .requirements import differences
from .store import Document, Store


def now() -> str:
    return datetime.now(timezone.utc).isoformat()


def new_key() -> str:
    return secrets.token_urlsafe(24)


class Operation:
    """Something that takes a while: its state, and the log that the SDK streams."""

    def __init__(self, kind: str) -> None:
        self.id = str(uuid.uuid4())
        self.kind = kind
        self.state = "Running"
        self.error: Document | None = None
        self.created, self.ended = now(), ""
        self.resource: str | None = None
        self._log = ""
        self._done = threading.Event()

    def say(self, line: str) -> None:
        """Add a line to the log; # and | are the separators of its format."""
        stamp = datetime.now(timezone.utc).strftime("%Y%m%d%H%M%S")
        self._log += f"{stamp}|{line.replace('#', ' ').replace('|', ' ')}#"

    def log_after(self, offset: int) -> str:
        return self._log[offset:]

    def finish(self, error: Document | None = None) -> None:
        self.state = "Failed" if error else "Succeeded"
        self.error, self.ended = error, now()
        self._done.set()

    def wait(self, seconds: float) -> None:
        self._done.wait(seconds)


class Service:
    """One service: what was asked for, its port, its keys and its container."""

    def __init__(self, request: Document) -> None:
        self.name: str = request["name"]
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.keys = {"primaryKey": new_key(), "secondaryKey": new_key()}
        self.container: Container | None = None
        self.models: list[Document] = []
        self.error: Document | None = None
        self.created = now()
        self.changing = threading.Lock()
        self.deleted = False
        self.accept(request)

    def accept(self, request: Document) -> None:
        """Take what is asked for now: at creation, at an update, when it is overwritten."""
        self.request = request
        self.keys |= {name: key for name, key in (request.get("keys") or {}).items() if key}
        self.operation = Operation("Service")
        self.updated = now()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.listener.getsockname()[1]}"

    @property
    def state(self) -> str:
        if self.operation.state == "Running":
            return "Transitioning"
        return self.container.state if self.container else "Failed"

    def apply_keys(self) -> None:
        if self.container is not None:
            on = self.request.get("authEnabled")
            self.container.set_keys(list(self.keys.values()) if on else None)

    def log_tail(self, lines: int) -> str:
        return self.container.log_tail(lines) if self.container else ""


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
        return list(self._services.values())

    def find(self, name: str) -> Service | None:
        return self._services.get(name)

    def using(self, model_id: str) -> list[str]:
        """The names of the services that run this model (``name:version``)."""
        return [s.name for s in self.all() if model_id in [model["id"] for model in s.models]]

    def create(self, request: Document, recipe: Document, models: list[Document]) -> Service:
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
            operation = service.operation
        self._deploy(service, operation, recipe, models)
        return service

    def update(
        self, service: Service, request: Document, recipe: Document | None, models: list[Document]
    ) -> None:
        """Change a service; with a new recipe its container is built anew."""
        with self._lock:
            service.accept(request)
            operation = service.operation
        if recipe is not None:
            self._deploy(service, operation, recipe, models)
        else:
            service.apply_keys()
            self.operations[operation.id] = operation
            operation.finish()

    def delete(self, name: str) -> None:
        with self._lock:
            service = self._services.pop(name)
        self._remove(service)

    def stop_all(self) -> None:
        with self._lock:
            services, self._services = self.all(), {}
        for service in services:
            self._remove(service)

    @staticmethod
    def _remove(service: Service) -> None:
        service.deleted = True
        container = service.container
        if container is not None:
            container.stop()
        with service.changing:
            if service.container is not None:
                service.container.stop()
            service.listener.close()

    def start_operation(self, kind: str, work: Callable[[Operation], Any]) -> Operation:
        """An operation that is over at once."""
        operation = Operation(kind)
        self.operations[operation.id] = operation
        work(operation)
        operation.finish()
        return operation

    def _deploy(
        self, service: Service, operation: Operation, recipe: Document, models: list[Document]
    ) -> None:
        self.operations[operation.id] = operation
        notes = differences(recipe.get("environment") or {})
        for note in notes:
            operation.say(note)
        arguments = (service, operation, recipe, models, notes)
        threading.Thread(target=self._build_and_start, args=arguments, daemon=True).start()

    def _build_and_start(
        self,
        service: Service,
        operation: Operation,
        recipe: Document,
        models: list[Document],
        notes: list[str],
    ) -> None:
        with service.changing:
            try:
                if service.container is not None:
                    service.container.stop()
                    service.container = None
                folder = build_folder(self._folder, self._store, recipe, models)
                wanted = service.request["containerResourceRequirements"]
                container = service.container = Container(
                    folder,
                    service.listener,
                    cpu_cores=float(wanted["cpu"]),
                    memory_gb=float(wanted["memoryInGB"]),
                    environment=script_environment(folder, service.name, recipe, models),
                )
                service.models = models
                for note in notes:
                    container.log(note)
                service.apply_keys()
                healthy = not service.deleted and container.start()
                operation.finish(None if healthy else crashed(service))
            except Exception as error:
                operation.finish(failure("DeploymentFailed", f"{type(error).__name__}: {error}"))
            service.error = operation.error


def already_exists(name: str) -> str:
    return (
        f"There is a service {name} already. Delete it, deploy with overwrite=True, or choose "
        "another name."
    )


def failure(code: str, message: str) -> Document:
    return {"code": code, "statusCode": 400, "message": message, "details": []}


def crashed(service: Service) -> Document:
    tail = service.log_tail(20)
    return failure(
        "AciDeploymentFailed",
        f"The container of {service.name} did not start: its script could not be imported or "
        f"init() raised. The last lines of its log:\n{tail}",
    )
