"""Deployments: one or more containers that are made from one container spec."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from .container import BUCKETS, GRACE, AccessPolicy, Container, sum_up
from .faults import Failed, Fault
from .records import Model, now
from .requirements import differences


@dataclass(frozen=True)
class Upload:
    """Something that was uploaded, and where it goes.

    Attributes
    ----------
    artifact : str
        The path it was uploaded to: of a file, or of a folder with all below it.
    path : str
        Where it goes, below the container's ``app`` folder.
    unpack : bool
        It is a tar archive, whose content goes there.
    """

    artifact: str
    path: str = ""
    unpack: bool = False


@dataclass(frozen=True, eq=False)
class ContainerSpec:
    """What a container is made of. Instances compare by identity: a new spec means new containers.

    Attributes
    ----------
    script : str
        The entry script, below the ``app`` folder.
    conda : dict or None
        The content of a conda file, which is compared with what is installed here.
    environment : str
        The registered environment that it was made from, as ``name:version``, if any.
    variables : dict of str to str
        Environment variables of the script.
    cpu_cores, memory_gb : float
    max_pending : int or None
        How many requests may wait or run in one of its processes; the next is answered 429.
    insights : bool
        Its telemetry is kept: requests, failures, durations, what the script prints.
    warnings : tuple of str
        What is another way here than was asked for; told in the operation and in the log.
    """

    script: str
    uploads: tuple[Upload, ...]
    models: tuple[Model, ...] = ()
    conda: dict[str, Any] | None = None
    environment: str = ""
    variables: dict[str, str] = field(default_factory=dict)
    cpu_cores: float = 1.0
    memory_gb: float = 1.0
    max_pending: int | None = None
    insights: bool = False
    warnings: tuple[str, ...] = ()

    @cached_property
    def all_warnings(self) -> list[str]:
        """`warnings`, and what is installed here in other versions than `conda` asks for."""
        return [*self.warnings, *differences(self.conda)]


@dataclass(frozen=True)
class DeploymentSpec:
    """What is wanted of a deployment; `other` is what only one client knows of."""

    container_spec: ContainerSpec
    replicas: int = 1
    description: str = ""
    tags: dict[str, str] = field(default_factory=dict)
    properties: dict[str, str] = field(default_factory=dict)
    other: Any = None


class Deployment:
    """What runs of a deployment, and how it follows its specification.

    Parameters
    ----------
    title : str
        What it is called in messages.
    build : callable
        Makes a container, not yet started, from a container spec.
    inner : socket
        Where its containers accept what a router sends; closed with the deployment.
    """

    spec: DeploymentSpec

    def __init__(
        self, title: str, build: Callable[[ContainerSpec], Container], inner: socket.socket
    ) -> None:
        self.title = title
        self.socket: str = inner.getsockname()
        self.containers: list[Container] = []
        self.error: Fault | None = None
        self.created = self.updated = now()
        self.reported_warnings: list[str] = []  # the notes of its last container spec
        self._build = build
        self._inner = inner
        self._access = AccessPolicy()
        self._container_spec: ContainerSpec | None = None  # that of the containers
        self._starting: list[tuple[ContainerSpec, Container]] = []
        self._reconciling: list[ContainerSpec] = []
        self._past = {"requests": 0, "failed": 0, "histogram": [0] * (len(BUCKETS) + 1)}
        self._ended = False
        self._changing = threading.Lock()  # held while containers come and go

    @property
    def state(self) -> str:
        """``Transitioning``, ``Healthy``, ``Unhealthy`` or ``Failed``."""
        if self._reconciling:
            return "Transitioning"
        states = [container.state for container in self.containers]
        for state in ("Healthy", "Unhealthy"):
            if state in states and self.error is None:
                return state
        return "Failed"

    @property
    def problem(self) -> str | None:
        """Why nobody answers, in a sentence; None if somebody does, or is about to."""
        containers = list(self.containers)
        if self._reconciling or any(each.state == "Healthy" for each in containers):
            return None
        if self.error is not None:
            return f"{self.title} has failed. {str(self.error).splitlines()[0]} Its log has more."
        problems = [each.problem for each in containers]
        if not problems or not all(problems):
            return None
        return f"{self.title} is not running: {problems[0]}. Its log has more."

    @property
    def requests(self) -> dict[str, Any]:
        """What it has answered so far, as `Container.requests` of all its containers."""
        return sum_up(self._past, *(container.requests for container in list(self.containers)))

    def log_tail(self, lines: int) -> str:
        """The last `lines` lines; of several containers a share each, under its number."""
        containers = [each for _, each in self._starting] or list(self.containers)
        if len(containers) == 1:
            return containers[0].log_tail(lines)
        share = -(-lines // max(1, len(containers)))
        return "\n".join(
            f"--- replica {number} of {len(containers)}, {each.state} ---\n{each.log_tail(share)}"
            for number, each in enumerate(containers, 1)
        )

    def apply_access_policy(self, access: AccessPolicy) -> None:
        """Let in who has the right from now on."""
        self._access = access
        run_concurrently(self._configure, self.containers)
        run_concurrently(self._configure_closed, [each for _, each in self._starting])

    def accept(self, spec: DeploymentSpec) -> bool:
        """Take what is wanted from now on; True if :meth:`reconcile` has to be called for it."""
        before = getattr(self, "spec", None)
        self.spec, self.updated = spec, now()
        if (
            before
            and before.container_spec is spec.container_spec
            and before.replicas == spec.replicas
        ):
            return False
        self._reconciling.append(spec.container_spec)
        return True

    def reconcile(self, container_spec: ContainerSpec) -> None:
        """Bring the containers to what is wanted, as long as that is still of this container spec.

        Raises
        ------
        Failed
            If a container did not start, or this container spec is not wanted any more.
        NotFound, Invalid
            If what the container spec names is not there, or not what it should be.
        """
        try:
            if self._is_current(container_spec):
                self._stop_starting(but=container_spec)
            with self._changing:
                try:
                    self._check_is_current(container_spec)
                    if self._container_spec is container_spec and self.error is None:
                        self._scale(container_spec)
                    else:
                        self._replace_containers(container_spec)
                finally:  # whatever else went wrong: that is why
                    self._check_is_current(container_spec)
        finally:
            self._reconciling.remove(container_spec)

    def end(self, grace: float = GRACE) -> None:
        """Stop the containers for good, also those that are starting.

        Parameters
        ----------
        grace : float
            Seconds for the requests that have arrived to be answered.
        """
        self._ended = True
        self._stop_starting()
        with self._changing:
            run_concurrently(lambda each: each.stop(grace), self.containers)
            self._inner.close()
            Path(self.socket).unlink(missing_ok=True)

    def _is_current(self, container_spec: ContainerSpec) -> bool:
        return not self._ended and self.spec.container_spec is container_spec

    def _check_is_current(self, container_spec: ContainerSpec) -> None:
        if not self._is_current(container_spec):
            raise Failed("superseded", f"{self.title} was deleted or deployed anew.")

    def _stop_starting(self, but: ContainerSpec | None = None) -> None:
        """Stop what is starting, so that who waits for that goes on at once."""
        others = [
            container
            for container_spec, container in list(self._starting)
            if container_spec is not but
        ]
        run_concurrently(Container.stop, others)

    def _replace_containers(self, container_spec: ContainerSpec) -> None:
        """Put containers of another container spec in the place of those that are there.

        As long as the new ones start, the old ones serve. If they do not start, nobody does.
        """
        before, self.error = self.containers, None
        new: list[Container] = []
        try:
            for _ in range(self.spec.replicas):
                new.append(self._make(container_spec))
            self._start(container_spec, new)
        except Fault as fault:
            if not self._is_current(container_spec):
                run_concurrently(Container.stop, new)
                return
            self.error = fault
            run_concurrently(Container.stop, [each for each in new if each.state != "Failed"])
            new = [each for each in new if each.state == "Failed"]  # kept for their logs
        finally:
            self._starting = []
        self.containers, self._container_spec = new, container_spec
        self._stop(before)
        if self.error is not None:
            raise self.error

    def _scale(self, container_spec: ContainerSpec) -> None:
        """Start what is missing, or stop what is too many, the youngest first."""
        wanted = self.spec.replicas
        self.containers, surplus = self.containers[:wanted], self.containers[wanted:]
        self._stop(surplus)
        more: list[Container] = []
        try:
            for _ in range(wanted - len(self.containers)):
                more.append(self._make(container_spec))
            self._start(container_spec, more)
        except Fault:
            run_concurrently(Container.stop, more)
            raise
        finally:
            self._starting = []
        self.containers = [*self.containers, *more]

    def _make(self, container_spec: ContainerSpec) -> Container:
        try:
            return self._build(container_spec)
        except OSError as error:
            raise Failed("deployment", f"Its folder could not be filled: {error}") from error

    def _start(self, container_spec: ContainerSpec, containers: list[Container]) -> None:
        """Start containers and open them when all have started."""
        run_concurrently(self._configure_closed, containers)
        self._starting = [(container_spec, container) for container in containers]
        self._check_is_current(container_spec)
        problems = run_concurrently(Container.start, containers)
        for container, problem in zip(containers, problems, strict=True):
            if problem is not None:
                raise Failed(
                    "deployment",
                    f"The container of {self.title} did not start: {problem}.\n"
                    + extract_failure_log(container.log_tail(5000)),
                )
        run_concurrently(self._configure, containers)

    def _configure(self, container: Container) -> None:
        container.configure(replace(self._access, max_pending=self.spec.container_spec.max_pending))

    def _configure_closed(self, container: Container) -> None:
        """As long as it starts: others may serve meanwhile, and it may have to go again."""
        container.configure(AccessPolicy(public=False))

    def _stop(self, containers: list[Container]) -> None:
        """End containers when they have answered what has reached them."""
        run_concurrently(Container.stop, containers)
        self._past = sum_up(self._past, *(container.requests for container in containers))


def run_concurrently(work: Callable[[Container], Any], containers: list[Container]) -> list[Any]:
    """The outcome for each container, for all of them at the same time."""
    if not containers:
        return []
    with ThreadPoolExecutor(len(containers)) as pool:
        return list(pool.map(work, containers))


def extract_failure_log(log: str) -> str:
    """The traceback of the script, without that of the server around it; or the last lines."""
    _, found, traceback = log.partition("Traceback (most recent call last):\n")
    around = "\n\nThe above exception was the direct cause of the following exception:\n\n"
    lines = (traceback.rpartition(around)[0] or traceback).splitlines() if found else []
    return "\n".join([found.strip(), *lines[-30:]] if found else log.splitlines()[-20:])
