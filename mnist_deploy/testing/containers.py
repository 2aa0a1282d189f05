"""The runtime of a mocked workspace: containers in memory, on the mocked clock.

It replaces the control plane's processes behind `mnist_deploy.local.core.runtime`.
"""

from __future__ import annotations

import shutil
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import requests
from flask import Response

from mnist_deploy.local import authorization
from mnist_deploy.local.core.container_folder import build_folder
from mnist_deploy.local.core.container_spec import ContainerSpec
from mnist_deploy.local.core.records import now
from mnist_deploy.local.core.routing import DEPLOYMENT, choose_deployment
from mnist_deploy.local.core.runtime import AccessPolicy, RoutingTable
from mnist_deploy.local.core.store import Store
from mnist_deploy.local.core.telemetry import NO_REQUESTS, Telemetry
from mnist_deploy.local.platforms import RUN_FAILED, Platform

from .behavior import Behavior, NoResponse, Plan, Rejected
from .cloud import MockedCloud, ScoringRequest
from .scoring import Call, Script, error_response

HOSTS = {"service": ".services.mocked.invalid", "endpoint": ".endpoints.mocked.invalid"}
BLOCKED_CHECK = 0.3  # seconds
POLL_INTERVAL = 0.05  # seconds
POLLER = "LROPoller"  # name prefix of the threads in which SDK v2 polls


class MemoryRuntime:
    """The runtime of a mocked workspace's deployments, and the WSGI app of its services.

    A change of an endpoint is applied at the request after the one that started it, or when a
    client waits for it, so that a test can see a deployment ``Transitioning``.

    Parameters
    ----------
    folder : Path
        The folder of the containers' files.
    """

    def __init__(self, store: Store, folder: Path, cloud: MockedCloud, behavior: Behavior) -> None:
        self.store, self.folder, self.cloud, self.behavior = store, folder, cloud, behavior
        self.base = ""  # the URL of the port; without a port each service has another host
        self.addresses: dict[str, MemoryAddress] = {}
        self._is_closed = False
        self._pending: deque[Callable[[], None]] = deque()
        self._applying = threading.RLock()
        self._progress = threading.Event()  # the change that is applied has ended, or is blocked
        self._blocked_changes = 0
        self._changed = threading.Condition()  # a blocked change may continue
        self.blocked_pollers: set[threading.Thread] = set()  # of changes that never end
        self._intervals: WeakKeyDictionary[threading.Event, float] = WeakKeyDictionary()

    def open_address(self, kind: str, name: str) -> MemoryAddress:
        address = MemoryAddress(self, kind, name)
        self.addresses[address.key] = address
        return address

    def warm_up(self) -> None:
        """Do nothing: there is no process to start."""

    def run(self, work: Callable[[], None]) -> None:
        self._pending.append(work)

    @property
    def has_pending_changes(self) -> bool:
        return bool(self._pending)

    def apply_changes(self) -> None:
        """Apply the pending changes; blocked changes continue in a thread."""
        with self._applying:
            while self._pending:
                self._progress = progress = threading.Event()
                work = self._pending.popleft()

                def apply(work: Callable[[], None] = work, end: Any = progress.set) -> None:
                    work()
                    end()

                threading.Thread(target=apply, daemon=True, name="mocked change").start()
                # A change that waits for a blocked change does not set the event.
                progress.wait(BLOCKED_CHECK if self._blocked_changes else None)

    def block_change(self, until: Callable[[], bool]) -> None:
        """Block the change of this thread until a condition is true or the mock ends."""
        self._blocked_changes += 1
        self._progress.set()
        with self._changed:
            self._changed.wait_for(lambda: until() or self._is_closed)
        self._blocked_changes -= 1

    def wake(self) -> None:
        """Check the conditions of blocked changes."""
        with self._changed:
            self._changed.notify_all()

    def wait(self, done: threading.Event, seconds: float) -> None:
        """Wait on the mocked clock with increasing intervals, so that hours need few requests."""
        self.apply_changes()
        if done.is_set():
            return
        thread = threading.current_thread()
        if thread.name.startswith(POLLER):  # the test's own thread advances the clock
            self.blocked_pollers.add(thread)
            while not done.wait(POLL_INTERVAL) and not self._is_closed:
                pass
            self.blocked_pollers.discard(thread)
            return
        interval = self._intervals[done] = 2 * self._intervals.get(done, seconds / 2)
        self.cloud.clock.sleep(interval)

    def close(self) -> None:
        self._is_closed = True
        self.wake()

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        """Respond to a request to a service or an endpoint."""
        self.apply_changes()
        key = environ["HTTP_HOST"].lower()
        if self.base:  # /services/<name>/score
            _, kind, name, path = f"{environ['PATH_INFO']}///".split("/", 3)
            key, environ["PATH_INFO"] = f"{kind}/{name}", f"/{path.strip('/')}"
        if key not in self.addresses:
            raise requests.ConnectionError(f"No service listens at {key}.")
        return self.addresses[key].answer(Call(environ))(environ, start_response)


class MemoryAddress:
    """The address of one service or endpoint; see `core.runtime.Address`."""

    routes: RoutingTable
    problem: str | None = None

    def __init__(self, runtime: MemoryRuntime, kind: str, name: str) -> None:
        self.runtime, self.kind, self.name = runtime, kind, name
        self.key = f"{kind}s/{name}" if runtime.base else f"{name.lower()}{HOSTS[kind]}"
        self.url = f"{runtime.base}/{self.key}" if runtime.base else f"http://{self.key}"
        self.deployments: dict[str, MemoryContainerFactory] = {}
        self._answered: Counter[str] = Counter()
        self._shares: dict[str, float] = {}

    def add_deployment(self, name: str) -> MemoryContainerFactory:
        self.deployments[name] = MemoryContainerFactory(self, name)
        return self.deployments[name]

    def apply(self, routes: RoutingTable, problem: str | None) -> None:
        shares = {name: float(target.share) for name, target in routes.targets.items()}
        if shares != self._shares:
            self._answered.clear()
        self.routes, self.problem, self._shares = routes, problem, shares

    def has_to_switch(self, routes: RoutingTable) -> bool:
        return False

    def switch(self, routes: RoutingTable) -> None:
        """Do nothing: this object is the front end of every platform."""

    def close(self) -> None:
        self.runtime.addresses.pop(self.key, None)

    def release(self) -> None:
        """Do nothing: no port is open."""

    def name_of(self, deployment: str) -> str:
        """Return the name of a deployment in tests: ``service`` or ``endpoint/deployment``."""
        return self.name if deployment == self.name else f"{self.name}/{deployment}"

    def answer(self, call: Call) -> Response:
        """Respond to a request, and record the request."""
        requested = call.headers.get(DEPLOYMENT)
        try:
            chosen, missing = choose_deployment(self._shares, requested, self._draw), ""
        except LookupError as error:
            chosen, missing = "none", error.args[0]
        name, status = self.name_of(chosen), None
        try:
            response = self._answer(call, chosen, missing)
            status = response.status_code
            return response
        except NoResponse:
            self._take_time(float("inf"), call.timeout)
            raise AssertionError("unreachable") from None
        finally:
            format_, value = call.document
            request = ScoringRequest(name, call.body, call.images, status, value, format_)
            self.runtime.cloud.requests.append(request)

    def _answer(self, call: Call, chosen: str, missing: str) -> Response:
        routes, platform = self.routes, self.routes.platform
        if self.problem is not None and not platform.has_front_end:
            return reject(platform.unavailable if routes.targets else 404, self.problem)
        self._take_time(
            self.runtime.behavior.find("delay", self.name_of(chosen), 0.0), call.timeout
        )
        if (early := self._find_rejection(call, chosen, missing)) is not None:
            return early
        if DEPLOYMENT not in call.headers:
            self._answered[chosen] += 1
        try:
            response = self._container(chosen).answer(call)
        except Rejected as rejection:
            response = reject(rejection.status, str(rejection))
        else:
            headers = {name.lower(): value for name, value in response.headers.items()}
            response.status_code, added = platform.translate_answer(response.status_code, headers)
            response.headers.update(added)
        if platform.has_front_end:
            response.headers[DEPLOYMENT] = chosen
        return response

    def _find_rejection(self, call: Call, chosen: str, missing: str) -> Response | None:
        """Return the error response of the front end, or of the container before it runs."""
        platform, access = self.routes.platform, self.routes.access
        header = call.headers.get("Authorization", "")
        if call.path != "/" and not authorization.is_authorized(header, access.keys, access.tokens):
            if platform.has_front_end:
                return reject(401, authorization.ENDPOINT_KEY_REQUIRED)
            return reject(401, authorization.CONTAINER_KEY_REQUIRED)
        if not self.routes.targets:
            return reject(404, f"{self.name} has no deployment.")
        if missing:
            return reject(404, missing)
        problem = self.routes.targets[chosen].problem
        return None if problem is None else reject(platform.unavailable, problem)

    def _draw(self, shares: Mapping[str, float]) -> str:
        """Return the deployment furthest below its share, so that the shares are exact."""
        with_traffic = {name: share for name, share in shares.items() if share}
        return min(with_traffic, key=lambda name: (self._answered[name] + 1) / with_traffic[name])

    def _container(self, deployment: str) -> MemoryContainer:
        containers = self.deployments[deployment].containers
        healthy = [container for container in containers if container.state == "Healthy"]
        if not healthy:  # requests wait for a deployment that starts
            raise NoResponse
        return healthy[self._answered[deployment] % len(healthy)]

    def _take_time(self, seconds: float, timeout: float | None) -> None:
        clock = self.runtime.cloud.clock
        if timeout is None and seconds == float("inf"):
            raise self.runtime.behavior.record(
                AssertionError("The request has no time-out and would wait without end.")
            )
        if timeout is not None and seconds > timeout:
            clock.sleep(timeout)
            raise requests.ReadTimeout("The mocked service did not respond in time.")
        clock.sleep(seconds)


class MemoryContainerFactory:
    """Creates the containers of one deployment."""

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
        container = MemoryContainer(self, spec, on_change)
        self.containers.append(container)
        return container

    def close(self) -> None:
        self.address.deployments.pop(self.name, None)


class MemoryContainer:
    """Starts, fails and responds by the test's settings; see `core.runtime.Container`."""

    def __init__(
        self, factory: MemoryContainerFactory, spec: ContainerSpec, on_change: Callable[[], Any]
    ) -> None:
        self.state = "Transitioning"
        self.problem: str | None = None
        self._factory, self._on_change = factory, on_change
        self._runtime = runtime = factory.address.runtime
        self._name = factory.address.name_of(factory.name)
        self._is_stopped = False
        self._counts = {"requests": 0, "failed": 0}
        self._lines: list[str] = []
        self._folder = build_folder(runtime.folder, runtime.store, spec)
        app = self._folder / "app"
        self._script = Script(app, spec.script, self._name, runtime.behavior, self.log)
        self.log(f"the container of {self._name} starts")

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
        """Do nothing: the address authorizes requests."""

    def start(self) -> str | None:
        behavior = self._runtime.behavior
        find_plan = partial(behavior.find, "plan", self._name, Plan())
        if not find_plan().finishes:
            self._runtime.block_change(lambda: self._is_stopped or find_plan().finishes)
        plan = find_plan()
        if self._is_stopped or not plan.finishes:
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
        self._is_stopped = True
        self._runtime.wake()
        if self in self._factory.containers:
            self._factory.containers.remove(self)
        shutil.rmtree(self._folder, ignore_errors=True)

    def answer(self, call: Call) -> Response:
        self._counts["requests"] += 1
        response = self._script.answer(call)
        self._counts["failed"] += response.status_code >= 400
        return response


def reject(status: int, message: str) -> Response:
    """Return an error response of the platform, not of the script."""
    response = error_response(message, status)
    del response.headers[RUN_FAILED]
    return response
