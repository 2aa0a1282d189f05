"""The interface between the desired state and its runtime: containers and front ends.

`Endpoints` and `Deployment` determine the containers; an implementation of `Runtime` runs them. The
control plane's process has `process_runtime.ProcessRuntime`, with listening sockets, a router,
a fallback responder and scoring processes. This module imports no module that only POSIX has.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from ..platforms import Platform, RequestSettings
from .container_spec import ContainerSpec
from .telemetry import Telemetry

GRACE = 10.0  # seconds for the requests in flight when a container is stopped


@dataclass(frozen=True)
class AccessPolicy:
    """The requests that a container accepts and authorizes.

    Attributes
    ----------
    keys : tuple of str, or None
        The valid keys. None: no key is required.
    tokens : mapping of str to float
        The expiry of each valid token in seconds since the epoch, by `authorization.hash_token`.
    public : bool
        Whether the container accepts at the endpoint's address, if its platform has no front end.
    """

    keys: tuple[str, ...] | None = field(default=None, repr=False)
    tokens: Mapping[str, float] = field(default_factory=dict, repr=False)
    public: bool = True


@dataclass(frozen=True)
class RoutingTarget:
    """The entry of a deployment in the routing table.

    Attributes
    ----------
    socket : str
        The path of the UNIX socket on which the deployment's containers accept.
    share, mirror : int
        The share of the requests that name no deployment, and of copies of them, in percent.
    problem : str or None
        The reason why no container serves.
    requests : RequestSettings
        The request limits that the deployment sets; a field that is None gets the platform default.
    instances : int
        The desired number of containers.
    """

    socket: str
    share: int = 0
    mirror: int = 0
    problem: str | None = None
    requests: RequestSettings = field(default_factory=RequestSettings)
    instances: int = 1


@dataclass(frozen=True)
class RoutingTable:
    """The deployments that serve an endpoint's requests, and the access policy."""

    platform: Platform
    targets: dict[str, RoutingTarget] = field(default_factory=dict)
    access: AccessPolicy = field(default_factory=AccessPolicy)

    @property
    def needs_router(self) -> bool:
        """Whether requests pass a front end of the platform before they reach a container."""
        return self.platform.has_front_end and bool(self.targets)


class Container(Protocol):
    """A container that serves a script.

    Attributes
    ----------
    state : str
        ``Transitioning`` until the container has started, then ``Healthy`` while it serves,
        otherwise ``Unhealthy``; ``Failed`` if the container did not start.
    problem : str or None
        The reason why the container does not serve. None while it starts.
    requests : dict
        The counts of its requests, in the form of `telemetry.NO_REQUESTS`.
    """

    state: str
    problem: str | None

    @property
    def requests(self) -> dict[str, Any]: ...

    @property
    def process_ids(self) -> list[int]:
        """The ids of its scoring processes; empty if it has no process of its own."""

    def log(self, line: str) -> None:
        """Append a line to the container's log."""

    def log_tail(self, lines: int) -> str:
        """Return the last `lines` lines of the log."""

    def configure(self, access: AccessPolicy) -> None:
        """Apply an access policy; it is in force when the call returns."""

    def start(self) -> str | None:
        """Block until ``init()`` has returned; return the problem if it failed, else None."""

    def stop(self, grace: float = GRACE) -> None:
        """Stop the container; received requests get `grace` seconds to be answered."""


class ContainerFactory(Protocol):
    """Creates the containers of one deployment.

    Attributes
    ----------
    socket : str
        The address at which the containers accept the requests of a router.
    """

    socket: str

    def create(
        self,
        spec: ContainerSpec,
        platform: Platform,
        telemetry: Telemetry,
        on_change: Callable[[], Any],
    ) -> Container:
        """Create a container that is not started.

        If the platform has a front end, the container accepts its connections only.
        `on_change` is called without arguments, in any thread, when state or problem change.

        Raises
        ------
        NotFound, Invalid
            An upload or a model of the spec is missing in the store, or not valid.
        OSError
            The container's folder cannot be filled.
        """

    def close(self) -> None:
        """Release the socket, after the containers were stopped."""


class Address(Protocol):
    """The address of an endpoint, which is the same until the endpoint is deleted."""

    url: str

    def add_deployment(self, name: str) -> ContainerFactory:
        """Add a deployment, and return the factory of its containers."""

    def apply(self, routes: RoutingTable, problem: str | None) -> None:
        """Apply a routing table; without a router, answer requests with `problem` if it is set."""

    def has_to_switch(self, routes: RoutingTable) -> bool:
        """Whether a router must be started or stopped for these routes."""

    def switch(self, routes: RoutingTable) -> None:
        """Start or stop the router."""

    def close(self) -> None:
        """Stop accepting; called before the containers are stopped."""

    def release(self) -> None:
        """Release the address, after the containers were stopped."""


class Runtime(Protocol):
    """Creates the containers and front ends of `Endpoints`."""

    def open_address(self, kind: str, name: str) -> Address:
        """Open the address of a new endpoint."""

    def warm_up(self) -> None:
        """Start the processes that a deployment will need, without waiting for them."""

    def run(self, work: Callable[[], None]) -> None:
        """Run the changes of an endpoint, without waiting for them."""

    def wait(self, done: threading.Event, seconds: float) -> None:
        """Wait for an event, at most for `seconds`."""

    def close(self) -> None:
        """Release all resources, after all endpoints were deleted."""
