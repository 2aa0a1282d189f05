"""The runtime of a mocked workspace: containers in memory, on the mocked clock.

It takes the place of the control plane's processes behind `mnist_deploy.local.core.runtime`.
"""

from __future__ import annotations

import shutil
import threading
from collections import Counter, deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import requests
from flask import Response

from mnist_deploy.local.authorization import (
    CONTAINER_KEY_REQUIRED,
    ENDPOINT_KEY_REQUIRED,
    is_authorized,
)
from mnist_deploy.local.core.container_folder import build_folder
from mnist_deploy.local.core.container_spec import ContainerSpec
from mnist_deploy.local.core.records import now
from mnist_deploy.local.core.routing import DEPLOYMENT, choose_deployment
from mnist_deploy.local.core.runtime import AccessPolicy, RoutingTable
from mnist_deploy.local.core.store import Store
from mnist_deploy.local.core.telemetry import NO_REQUESTS, Telemetry
from mnist_deploy.local.platforms import Platform

from .cloud import Behavior, MockedCloud, Rejected, ScoringRequest, Silent
from .scoring import Call, Script, fail, find_format

HOSTS = {"service": ".services.mocked.invalid", "endpoint": ".endpoints.mocked.invalid"}
HELD_CHECK = 0.3  # seconds
POLLER = "LROPoller"  # begins the names of the threads in which SDK v2 polls


class MemoryRuntime:
    """Runs what the mocked workspace deploys.

    A deployment begins to change with the request after the one that asked for it, or when
    something waits for it: so that a test can see it ``Transitioning``.

    Parameters
    ----------
    folder : Path
        For the files of containers.
    base : str
        Before the name of an endpoint in its URL, where the mock listens; else it is a host.
    """

    def __init__(self, store: Store, folder: Path, cloud: MockedCloud, behavior: Behavior) -> None:
        self.store, self.folder, self.cloud, self.behavior = store, folder, cloud, behavior
        self.base = ""
        self.addresses: dict[str, MemoryAddress] = {}
        self.waiting = threading.Condition()  # of starts that are to last, and of pollers
        self.is_closed = self.leads_clients = False
        self._pending: deque[Callable[[], None]] = deque()
        self._progress = threading.Event()
        self._settling = threading.RLock()
        self._holding = 0  # changes that are not to end
        self._held: set[threading.Thread] = set()
        self._holds: WeakKeyDictionary[threading.Event, float] = WeakKeyDictionary()

    def open_address(self, kind: str, name: str) -> MemoryAddress:
        address = MemoryAddress(self, kind, name)
        self.addresses[address.key] = address
        return address

    def warm_up(self) -> None:
        """There is nothing to prepare."""

    def run(self, work: Callable[[], None]) -> None:
        self._pending.append(work)

    @property
    def has_pending(self) -> bool:
        return bool(self._pending)

    def settle(self) -> None:
        """Apply the pending changes, except those whose containers are set not to start."""
        with self._settling:
            while self._pending:
                work = self._pending.popleft()
                progress = self._progress = threading.Event()

                def make(work: Callable[[], None] = work, done: threading.Event = progress) -> None:
                    work()
                    done.set()

                threading.Thread(target=make, daemon=True, name="mocked change").start()
                # One that waits for a change that is held does not report that.
                progress.wait(HELD_CHECK if self._holding else None)

    def hold(self, until: Callable[[], bool]) -> None:
        """Block a change until a condition is true; `settle` does not wait for it meanwhile."""
        self._holding += 1
        self._progress.set()
        with self.waiting:
            self.waiting.wait_for(lambda: until() or self.is_closed)
        self._holding -= 1

    def wait(self, done: threading.Event, seconds: float) -> None:
        """Wait on the mocked clock, each time longer, so that hours take few requests."""
        self.settle()
        if done.is_set():
            return
        thread = threading.current_thread()
        if thread.name.startswith(POLLER):  # the test's own thread lets the time pass
            self._held.add(thread)
            while not done.wait(0.05) and not self.is_closed:
                pass
            self._held.discard(thread)
            return
        hold = self._holds[done] = 2 * self._holds.get(done, seconds / 2)
        self.cloud.clock.sleep(hold)

    def is_held(self, thread: threading.Thread) -> bool:
        """Whether a thread of SDK v2 waits for a change that is not to end."""
        return thread in self._held

    def wake(self) -> None:
        with self.waiting:
            self.waiting.notify_all()

    def close(self) -> None:
        self.is_closed = True
        self.wake()

    def answer(self, key: str, call: Call) -> Response:
        """Answer a request to the address of a service or an endpoint."""
        self.settle()
        address = self.addresses.get(key)
        if address is None:
            raise requests.ConnectionError(f"No service answers at {key}.")
        return address.answer(call)


class MemoryAddress:
    """Where the requests to a service or an endpoint arrive."""

    routes: RoutingTable
    problem: str | None = None

    def __init__(self, runtime: MemoryRuntime, kind: str, name: str) -> None:
        self.runtime, self.kind, self.name = runtime, kind, name
        self.key = f"{kind}s/{name}" if runtime.base else f"{name.lower()}{HOSTS[kind]}"
        self.url = f"{runtime.base}/{self.key}" if runtime.base else f"http://{self.key}"
        self.deployments: dict[str, MemoryContainerFactory] = {}
        self._answered: Counter[str] = Counter()

    def add_deployment(self, name: str) -> MemoryContainerFactory:
        self.deployments[name] = MemoryContainerFactory(self, name)
        return self.deployments[name]

    def apply(self, routes: RoutingTable, problem: str | None) -> None:
        shares = {name: target.share for name, target in routes.targets.items()}
        if shares != {name: t.share for name, t in getattr(self, "routes", routes).targets.items()}:
            self._answered.clear()
        self.routes, self.problem = routes, problem

    def has_to_switch(self, routes: RoutingTable) -> bool:
        return False

    def switch(self, routes: RoutingTable) -> None:
        """One object answers, whatever the platform."""

    def close(self) -> None:
        self.runtime.addresses.pop(self.key, None)

    def release(self) -> None:
        """There is no port to release."""

    def name_of(self, deployment: str) -> str:
        """``service``, or ``endpoint/deployment``: as a test names it."""
        return self.name if deployment == self.name else f"{self.name}/{deployment}"

    def answer(self, call: Call) -> Response:
        """Answer a request, and record it."""
        call.format, call.json = find_format(call.body)
        cloud, status = self.runtime.cloud, None
        name = self.name_of(self._chosen(call) or "none")
        try:
            response = self._answer(call, name)
            status = response.status_code
            return response
        except Silent:
            self._take_time(float("inf"), call.patience)
            raise AssertionError("unreachable") from None
        finally:
            cloud.requests.append(
                ScoringRequest(name, call.body, call.images, status, call.json, call.format)
            )

    def _answer(self, call: Call, name: str) -> Response:
        behavior, routes = self.runtime.behavior, self.routes
        platform = routes.platform
        if self.problem is not None and not platform.has_front_end:
            return fail_plainly(self.problem, platform.unavailable if routes.targets else 404)
        self._take_time(behavior.delay_of(name), call.patience)
        authorization = str(call.headers.get("Authorization", ""))
        access = routes.access
        if call.path != "/" and not is_authorized(authorization, access.keys, access.tokens):
            if platform.has_front_end:
                return fail_plainly(ENDPOINT_KEY_REQUIRED, 401)
            return fail_plainly(CONTAINER_KEY_REQUIRED, 401)
        if not routes.targets:
            return fail_plainly(f"{self.name} has no deployment.", 404)
        try:
            chosen = choose_deployment(self._shares, call.headers.get(DEPLOYMENT), self._draw)
        except LookupError as error:
            return fail_plainly(error.args[0], 404)
        if (problem := routes.targets[chosen].problem) is not None:
            return fail_plainly(problem, platform.unavailable)
        try:
            response = self._container(chosen).answer(call)
        except Rejected as rejection:
            response = fail_plainly(str(rejection), rejection.status)
        else:
            lower = {key.lower(): value for key, value in response.headers.items()}
            status, added = platform.translate_answer(response.status_code, lower)
            response.status_code = status
            response.headers.update(added)
        if platform.has_front_end:
            response.headers[DEPLOYMENT] = chosen
        return response

    @property
    def _shares(self) -> dict[str, float]:
        return {name: target.share for name, target in self.routes.targets.items()}

    def _chosen(self, call: Call) -> str | None:
        """The deployment of a request, if there is one."""
        try:
            return choose_deployment(self._shares, call.headers.get(DEPLOYMENT), self._peek)
        except LookupError:
            return None

    def _peek(self, shares: Mapping[str, float]) -> str:
        """The deployment that is furthest from its share: the shares are kept exactly."""
        with_traffic = {name: share for name, share in shares.items() if share}
        return min(with_traffic, key=lambda name: (self._answered[name] + 1) / with_traffic[name])

    def _draw(self, shares: Mapping[str, float]) -> str:
        name = self._peek(shares)
        self._answered[name] += 1
        return name

    def _container(self, deployment: str) -> MemoryContainer:
        found = self.deployments[deployment].containers
        healthy = [container for container in found if container.state == "Healthy"]
        if not healthy:  # it is being deployed: requests wait for it
            raise Silent
        return healthy[self._answered[deployment] % len(healthy)]

    def _take_time(self, seconds: float, patience: float | None) -> None:
        clock = self.runtime.cloud.clock
        if patience is None and seconds == float("inf"):
            raise self.runtime.behavior.note(
                AssertionError("The request has no time-out and would wait without end.")
            )
        if patience is not None and seconds > patience:
            clock.sleep(patience)
            raise requests.ReadTimeout("The mocked service did not answer in time.")
        clock.sleep(seconds)


class MemoryContainerFactory:
    """Makes the containers of one deployment."""

    socket = ""

    def __init__(self, address: MemoryAddress, name: str) -> None:
        self.address, self.name = address, name
        self.containers: list[MemoryContainer] = []

    def create(
        self,
        spec: ContainerSpec,
        platform: Platform,
        telemetry: Telemetry,
        on_change: Callable[[], Any],
    ) -> MemoryContainer:
        runtime = self.address.runtime
        folder = build_folder(runtime.folder, runtime.store, spec)
        container = MemoryContainer(self, folder, spec.script, on_change)
        self.containers.append(container)
        return container

    def close(self) -> None:
        self.address.deployments.pop(self.name, None)


class MemoryContainer:
    """Starts, fails and answers as the test's cloud says; see `core.runtime.Container`."""

    def __init__(
        self,
        factory: MemoryContainerFactory,
        folder: Path,
        script: str,
        on_change: Callable[[], Any],
    ) -> None:
        self.state = "Transitioning"
        self.problem: str | None = None
        self.name = factory.address.name_of(factory.name)
        self._factory, self._folder, self._on_change = factory, folder, on_change
        self._runtime = factory.address.runtime
        self._stopped = False
        self._counts = {"requests": 0, "failed": 0}
        self._lines: list[str] = []
        self.log(f"the container of {self.name} starts")
        self._script = Script(folder / "app", script, self.name, self._runtime.behavior, self.log)

    @property
    def requests(self) -> dict[str, Any]:
        return {**NO_REQUESTS, **self._counts}

    @property
    def process_ids(self) -> list[int]:
        return []

    def log(self, line: str) -> None:
        self._lines += [f"{now()} mocked - {each}" for each in line.splitlines()]

    def log_tail(self, lines: int) -> str:
        return "\n".join(self._lines[-lines:]) if lines > 0 else ""

    def configure(self, access: AccessPolicy) -> None:
        """The address authorizes requests itself."""

    def start(self) -> str | None:
        behavior = self._runtime.behavior
        plan = behavior.plan_for(self.name)
        if not plan.finishes:
            self._runtime.hold(lambda: self._stopped or behavior.plan_for(self.name).finishes)
            plan = behavior.plan_for(self.name)
        if self._stopped or self._runtime.is_closed:
            self.problem = "it was stopped"
        elif plan.init_error is not None:
            self.log(plan.init_error)
            self.problem = "its script could not be imported, or init() raised"
        else:
            self.log("init() returned")
        self.state = "Failed" if self.problem else "Healthy"
        self._on_change()
        return self.problem

    def stop(self, grace: float = 0) -> None:
        self._stopped = True
        self._runtime.wake()
        if self in self._factory.containers:
            self._factory.containers.remove(self)
        shutil.rmtree(self._folder, ignore_errors=True)

    def answer(self, call: Call) -> Response:
        self._counts["requests"] += 1
        response = self._script.answer(call)
        self._counts["failed"] += response.status_code >= 400
        return response


def fail_plainly(message: str, status: int) -> Response:
    """An error response that the platform sends, not the script."""
    response = fail(message, status)
    del response.headers["x-ms-run-function-failed"]
    return response
