"""Deployments: one or more containers that are made from one container spec."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

from .container_spec import ContainerSpec
from .faults import Failed, Fault
from .records import now
from .runtime import GRACE, AccessPolicy, Container
from .telemetry import NO_REQUESTS, sum_counts


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
    socket : str
        The path at which its containers accept what a router sends.
    create : callable
        Makes a container, not yet started, from a container spec.
    close : callable
        Called after the last container was stopped.
    """

    spec: DeploymentSpec

    def __init__(
        self,
        title: str,
        socket: str,
        create: Callable[[ContainerSpec], Container],
        close: Callable[[], None] = lambda: None,
    ) -> None:
        self.title, self.socket = title, socket
        self.containers: list[Container] = []
        self.error: Fault | None = None
        self.created = self.updated = now()
        self.reported_warnings: list[str] = []  # the notes of its last container spec
        self._create, self._close = create, close
        self._access = AccessPolicy()
        self._container_spec: ContainerSpec | None = None  # that of the containers
        self._starting: list[tuple[ContainerSpec, Container]] = []
        self._reconciling: list[ContainerSpec] = []
        self._past = NO_REQUESTS
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
        return sum_counts(self._past, *(container.requests for container in list(self.containers)))

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
            self._close()

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
        run_concurrently(lambda each: each.stop(), others)

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
                run_concurrently(lambda each: each.stop(), new)
                return
            self.error = fault
            run_concurrently(
                lambda each: each.stop(), [each for each in new if each.state != "Failed"]
            )
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
            run_concurrently(lambda each: each.stop(), more)
            raise
        finally:
            self._starting = []
        self.containers = [*self.containers, *more]

    def _make(self, container_spec: ContainerSpec) -> Container:
        try:
            return self._create(container_spec)
        except OSError as error:
            raise Failed("deployment", f"Its folder could not be filled: {error}") from error

    def _start(self, container_spec: ContainerSpec, containers: list[Container]) -> None:
        """Start containers and open them when all have started."""
        run_concurrently(self._configure_closed, containers)
        self._starting = [(container_spec, container) for container in containers]
        self._check_is_current(container_spec)
        problems = run_concurrently(lambda each: each.start(), containers)
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
        run_concurrently(lambda each: each.stop(), containers)
        self._past = sum_counts(self._past, *(container.requests for container in containers))


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
