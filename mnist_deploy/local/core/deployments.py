"""Deployments: one or more containers that are made from one container spec."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from ..platforms import RequestSettings
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
    requests: RequestSettings = field(default_factory=RequestSettings)
    description: str = ""
    tags: dict[str, str] = field(default_factory=dict)
    properties: dict[str, str] = field(default_factory=dict)
    other: Any = None


class Deployment:
    """The containers of one deployment, reconciled with what is wanted of them.

    `accept` takes what is wanted from now on, in the order of the requests; `reconcile` then
    changes the containers, in a thread of the caller. Each accepted change of the containers has
    a number, so that a call of `reconcile` for an earlier change has nothing left to do.

    Lock order: `_changing`, which is held while containers start and stop; nothing is called
    with it held that waits for `accept`.

    Parameters
    ----------
    title : str
        The name of the deployment in messages.
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
        self._reported: list[str] = []  # warnings of the last container spec
        self._create, self._close = create, close
        self._access = AccessPolicy()
        self._running: ContainerSpec | None = None  # that of the containers
        self._starting: list[Container] = []
        self._starting_spec: ContainerSpec | None = None
        self._accepted = self._reconciled = 0  # numbers of changes
        self._past = NO_REQUESTS
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
        """Why no container answers, in a sentence; None if one answers, or is restarted."""
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
        """The counts of requests, of all containers that the deployment had and has."""
        return sum_counts(self._past, *(container.requests for container in list(self.containers)))

    def log_tail(self, lines: int) -> str:
        """The last `lines` lines; of several containers a share each, under its number."""
        containers = list(self._starting) or list(self.containers)
        if len(containers) == 1:
            return containers[0].log_tail(lines)
        share = -(-lines // max(1, len(containers)))
        return "\n".join(
            f"--- replica {number} of {len(containers)}, {each.state} ---\n{each.log_tail(share)}"
            for number, each in enumerate(containers, 1)
        )

    def apply_access_policy(self, access: AccessPolicy) -> None:
        """Have the containers authorize requests by `access` from now on."""
        self._access = access
        run_concurrently(self._configure, self.containers)
        run_concurrently(self._configure_closed, self._starting)

    def new_warnings(self) -> list[str]:
        """The warnings of the container spec that the spec before it did not have."""
        before, self._reported = self._reported, self.spec.container_spec.all_warnings
        return [warning for warning in self._reported if warning not in before]

    def accept(self, spec: DeploymentSpec) -> int | None:
        """Take what is wanted from now on.

        Returns
        -------
        int or None
            The number of the change, with which :meth:`reconcile` has to be called; None if the
            containers stay as they are.
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
        """Change the containers until they are what is wanted, or another spec is wanted.

        Parameters
        ----------
        change : int
            What :meth:`accept` returned.
        container_spec : ContainerSpec
            The spec that was accepted by that change.

        Raises
        ------
        Failed
            If a container did not start, or containers of another spec are wanted by now.
        NotFound, Invalid
            If what the container spec names is not there, or not what it should be.
        """
        if self._is_wanted(container_spec):
            self._stop_starting(but=container_spec)
            self._reconcile(change, container_spec)
        if not self._is_wanted(container_spec):
            raise Failed("superseded", f"{self.title} was deleted or deployed again.")
        if self.error is not None:
            raise self.error

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

    @property
    def _is_changing(self) -> bool:
        return self._reconciled < self._accepted

    def _is_wanted(self, container_spec: ContainerSpec) -> bool:
        return not self._ended and self.spec.container_spec == container_spec

    def _reconcile(self, change: int, container_spec: ContainerSpec) -> None:
        with self._changing:
            while self._is_wanted(container_spec) and self._reconciled < change:
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
        """Have as many containers of the spec as are wanted."""
        if self._running == spec.container_spec and self.error is None:
            self._scale(spec)
        else:
            self._replace_containers(spec)

    def _replace_containers(self, spec: DeploymentSpec) -> None:
        """Start containers of another spec, which take the place of the present ones.

        As long as they start, the present ones serve. If they do not start, none serves.
        """
        before, self.error = self.containers, None
        new: list[Container] = []
        try:
            for _ in range(spec.replicas):
                new.append(self._make(spec.container_spec))
            self._start(spec.container_spec, new)
        except Fault as fault:
            if self._interrupted or not self._is_wanted(spec.container_spec):
                run_concurrently(lambda each: each.stop(), new)
                return
            self.error = fault
            run_concurrently(lambda each: each.stop(), [e for e in new if e.state != "Failed"])
            new = [each for each in new if each.state == "Failed"]  # kept for their logs
        finally:
            self._starting = []
        self.containers, self._running = new, spec.container_spec
        self._stop(before)

    def _scale(self, spec: DeploymentSpec) -> None:
        """Start the containers that are missing, or stop surplus ones, the youngest first."""
        present, wanted = self.containers, spec.replicas
        self.containers = present[:wanted]
        self._stop(present[wanted:])
        more: list[Container] = []
        try:
            for _ in range(wanted - len(self.containers)):
                more.append(self._make(spec.container_spec))
            self._start(spec.container_spec, more)
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
        """Start containers, and open them when all have started."""
        run_concurrently(self._configure_closed, containers)
        self._starting, self._starting_spec = containers, container_spec
        if not self._is_wanted(container_spec):  # it was changed before they were to be found
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

    def _configure_closed(self, container: Container) -> None:
        """Keep a starting container from accepting: others may serve, and it may be stopped."""
        container.configure(AccessPolicy(public=False))

    def _stop(self, containers: list[Container]) -> None:
        """Stop containers when they have answered what has reached them."""
        run_concurrently(lambda each: each.stop(), containers)
        self._past = sum_counts(self._past, *(container.requests for container in containers))


def run_concurrently(work: Callable[[Container], Any], containers: list[Container]) -> list[Any]:
    """The outcome for each container, for all of them at the same time."""
    if len(containers) < 2:
        return [work(container) for container in containers]
    with ThreadPoolExecutor(len(containers)) as pool:
        return list(pool.map(work, containers))


def extract_failure_log(log: str) -> str:
    """The traceback of the script, without that of the server around it; or the last lines."""
    _, found, traceback = log.partition("Traceback (most recent call last):\n")
    around = "\n\nThe above exception was the direct cause of the following exception:\n\n"
    lines = (traceback.rpartition(around)[0] or traceback).splitlines() if found else []
    return "\n".join([found.strip(), *lines[-30:]] if found else log.splitlines()[-20:])
