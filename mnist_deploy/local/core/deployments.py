"""Deployments: one or more containers of one container spec, reconciled with a desired state."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar

from ..host import filesystem
from ..platforms import RequestSettings
from .container_spec import ContainerSpec
from .faults import Failed, Fault
from .records import now
from .runtime import GRACE, AccessPolicy, Container
from .telemetry import NO_REQUESTS, sum_counts

T = TypeVar("T")


@dataclass(frozen=True)
class DeploymentSpec:
    """The desired state of a deployment; `other` holds the fields that only one SDK has."""

    container_spec: ContainerSpec
    replicas: int = 1
    requests: RequestSettings = field(default_factory=RequestSettings)
    description: str = ""
    tags: dict[str, str] = field(default_factory=dict)
    properties: dict[str, str] = field(default_factory=dict)
    other: Any = None


class Deployment:
    """The containers of one deployment, and their reconciliation with the desired state.

    `accept` stores a desired state, in the order of the requests; `reconcile` then changes the
    containers, in a thread of the caller. Each accepted change of the containers has a generation
    number: `reconcile` returns at once if the containers have reached that or a later generation.

    Locks: `_changing` is held while containers start and stop. `accept` needs no lock, so that a
    new desired state can interrupt a reconciliation. `_counting`, taken last, is held while
    containers are exchanged, so that no request is counted twice or not at all.

    Parameters
    ----------
    title : str
        The name of the deployment in messages.
    socket : str
        The path of the socket on which its containers accept the requests of a router.
    create : callable
        Creates a container, not yet started, from a container spec.
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
        self._reported: list[str] = []  # warnings of the last container spec
        self._create, self._close = create, close
        self._access = AccessPolicy()
        self._running: ContainerSpec | None = None  # the spec of `containers`
        self._starting: list[Container] = []
        self._starting_spec: ContainerSpec | None = None
        self._accepted = self._reconciled = 0  # generation numbers
        self._past_counts = NO_REQUESTS  # of stopped containers
        self._stopping: list[Container] = []
        self._counting = threading.Lock()
        self._ended = self._interrupted = False
        self._changing = threading.Lock()

    @property
    def state(self) -> str:
        """``Transitioning``, ``Healthy``, ``Unhealthy`` or ``Failed``."""
        if self._is_changing:
            return "Transitioning"
        states = [container.state for container in self.containers]
        for state in ("Healthy", "Unhealthy"):
            if state in states and self.error is None:
                return state
        return "Failed"

    @property
    def problem(self) -> str | None:
        """The reason why no container serves; None if one serves, or is being restarted."""
        containers = list(self.containers)
        states = {each.state for each in containers}
        if "Healthy" in states:
            return None
        if self._is_changing:
            if "Unhealthy" in states:
                return None
            return f"{self.title} is starting: init() of its script has not returned yet."
        if self.error is not None:
            return f"{self.title} has failed. {str(self.error).splitlines()[0]} Its log has more."
        problems = [each.problem for each in containers]
        if not problems or not all(problems):
            return None
        return f"{self.title} is not running: {problems[0]}. Its log has more."

    @property
    def requests(self) -> dict[str, Any]:
        """The counts of requests of all containers, including those that stop or were stopped."""
        with self._counting:
            past, counted = self._past_counts, [*self.containers, *self._stopping]
        return sum_counts(past, *(container.requests for container in counted))

    def log_tail(self, lines: int) -> str:
        """The last lines of the log; of several containers, a share of the lines for each."""
        containers = list(self._starting) or list(self.containers)
        if len(containers) == 1:
            return containers[0].log_tail(lines)
        share = -(-lines // max(1, len(containers)))
        return "\n".join(
            f"--- replica {number} of {len(containers)}, {each.state} ---\n{each.log_tail(share)}"
            for number, each in enumerate(containers, 1)
        )

    def apply_access_policy(self, access: AccessPolicy) -> None:
        """Apply an access policy in all containers; it is in force when the call returns."""
        self._access = access
        run_concurrently(self._configure, self.containers)
        run_concurrently(self._configure_private, self._starting)

    def new_warnings(self) -> list[str]:
        """The warnings of the container spec that the previous spec did not have."""
        before, self._reported = self._reported, self.spec.container_spec.all_warnings
        return [warning for warning in self._reported if warning not in before]

    def accept(self, spec: DeploymentSpec) -> int | None:
        """Store a desired state.

        Returns
        -------
        int or None
            The generation number for :meth:`reconcile`; None if the containers need no change.
        """
        before = getattr(self, "spec", None)
        self.spec, self.updated = spec, now()
        if (
            before is not None
            and before.container_spec == spec.container_spec
            and before.replicas == spec.replicas
        ):
            return self._accepted if self._is_changing else None
        self._accepted += 1
        return self._accepted

    def reconcile(self, change: int, container_spec: ContainerSpec) -> None:
        """Change the containers to the desired state, unless another one was accepted meanwhile.

        Parameters
        ----------
        change : int
            The generation number that :meth:`accept` returned.
        container_spec : ContainerSpec
            The container spec of that generation.

        Raises
        ------
        Failed
            If a container did not start, or another container spec was accepted meanwhile.
        NotFound, Invalid
            If an upload or a model of the container spec is missing, or not valid.
        """
        if self._is_desired(container_spec):
            self._stop_starting(but=container_spec)
            self._reconcile(change, container_spec)
        if not self._is_desired(container_spec):
            raise Failed("superseded", f"{self.title} was deleted or deployed again.")
        if self.error is not None:
            raise self.error

    def end(self, grace: float = GRACE) -> None:
        """Stop all containers, also those that are starting; the deployment cannot be used again.

        Parameters
        ----------
        grace : float
            Seconds for the containers to answer the requests that have arrived.
        """
        self._ended = True
        self._stop_starting()
        with self._changing:
            run_concurrently(lambda each: each.stop(grace), self.containers)
            self._close()

    @property
    def _is_changing(self) -> bool:
        return self._reconciled < self._accepted

    def _is_desired(self, container_spec: ContainerSpec) -> bool:
        return not self._ended and self.spec.container_spec == container_spec

    def _reconcile(self, change: int, container_spec: ContainerSpec) -> None:
        with self._changing:
            while self._is_desired(container_spec) and self._reconciled < change:
                number, self._interrupted = self._accepted, False
                try:
                    self._apply(self.spec)
                finally:
                    if not self._interrupted:
                        self._reconciled = number

    def _stop_starting(self, but: ContainerSpec | None = None) -> None:
        """Stop containers of another spec that are starting, so that their `start` returns."""
        if self._starting_spec != but:
            self._interrupted = True
            run_concurrently(lambda each: each.stop(), self._starting)

    def _apply(self, spec: DeploymentSpec) -> None:
        """Scale the containers if they run with the spec; otherwise replace them."""
        if self._running == spec.container_spec and self.error is None:
            self._scale(spec)
        else:
            self._replace_containers(spec)

    def _replace_containers(self, spec: DeploymentSpec) -> None:
        """Replace the present containers by containers of another spec.

        The present containers serve until the new ones have started. If a new one does not start,
        the present ones are stopped as well.
        """
        before, self.error = self.containers, None
        new: list[Container] = []
        try:
            for _ in range(spec.replicas):
                new.append(self._make(spec.container_spec))
            self._start(spec.container_spec, new)
        except Fault as fault:
            if self._interrupted or not self._is_desired(spec.container_spec):
                run_concurrently(lambda each: each.stop(), new)
                return
            self.error = fault
            run_concurrently(lambda each: each.stop(), [e for e in new if e.state != "Failed"])
            new = [each for each in new if each.state == "Failed"]  # kept for their logs
        finally:
            self._starting = []
        self._running = spec.container_spec
        self._replace(before, new)

    def _scale(self, spec: DeploymentSpec) -> None:
        """Start the containers that are missing, or stop surplus ones, the newest first."""
        present, desired = self.containers, spec.replicas
        self._replace(present[desired:], present[:desired])
        added: list[Container] = []
        try:
            for _ in range(desired - len(self.containers)):
                added.append(self._make(spec.container_spec))
            self._start(spec.container_spec, added)
        except Fault:
            run_concurrently(lambda each: each.stop(), added)
            raise
        finally:
            self._starting = []
        self.containers = [*self.containers, *added]

    def _make(self, container_spec: ContainerSpec) -> Container:
        try:
            return self._create(container_spec)
        except OSError as error:
            raise Failed(
                "deployment",
                f"The container's folder could not be filled: {filesystem.explain(error)}",
            ) from error

    def _start(self, container_spec: ContainerSpec, containers: list[Container]) -> None:
        """Start containers, which accept the endpoint's connections when all have started."""
        run_concurrently(self._configure_private, containers)
        self._starting, self._starting_spec = containers, container_spec
        if not self._is_desired(container_spec):  # changed before `_starting` was set
            raise Failed("superseded", f"{self.title} was deleted or deployed again.")
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
        container.configure(self._access)

    def _configure_private(self, container: Container) -> None:
        """Keep a container from accepting at the endpoint's address before all have started."""
        container.configure(AccessPolicy(public=False))

    def _replace(self, old: list[Container], new: list[Container]) -> None:
        """Set the present containers, stop the old ones gracefully, and keep their counts."""
        with self._counting:
            self.containers, self._stopping = new, old
        run_concurrently(lambda each: each.stop(), old)
        with self._counting:
            self._past_counts = sum_counts(self._past_counts, *(each.requests for each in old))
            self._stopping = []


def run_concurrently(work: Callable[[T], Any], items: list[T]) -> list[Any]:
    """Call `work` for all items at the same time, and return the results."""
    if len(items) < 2:
        return [work(item) for item in items]
    with ThreadPoolExecutor(len(items), "containers") as pool:
        return list(pool.map(work, items))


def extract_failure_log(log: str) -> str:
    """The traceback of the script without the frames of Microsoft's server, or the last lines."""
    _, found, traceback = log.partition("Traceback (most recent call last):\n")
    around = "\n\nThe above exception was the direct cause of the following exception:\n\n"
    lines = (traceback.rpartition(around)[0] or traceback).splitlines() if found else []
    return "\n".join([found.strip(), *lines[-30:]] if found else log.splitlines()[-20:])
