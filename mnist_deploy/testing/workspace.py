"""A mocked workspace: the local workspace's app, in this process, with everything in memory."""

from __future__ import annotations

import shutil
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import requests
from flask import Flask
from requests.structures import CaseInsensitiveDict
from werkzeug.serving import make_server
from werkzeug.wrappers import Request

from mnist_deploy.environments import ENVIRONMENT_NAME, build_scoring_environment
from mnist_deploy.local.core.endpoints import Endpoints
from mnist_deploy.local.core.records import Compute, Environment, Model, now
from mnist_deploy.local.core.store import Store
from mnist_deploy.local.rest import AppState
from mnist_deploy.local.server.app import create_routes, set_state
from mnist_deploy.local.server.client_registrations import ClientRegistrations
from mnist_deploy.local.tokens import create_token
from mnist_deploy.models import MODEL_FILE, MODEL_NAME

from . import connections, digits, network
from .cloud import Behavior, MockedCloud
from .containers import MemoryRuntime
from .scoring import Call

MODEL_PATH = f"LocalUpload/start/{MODEL_FILE}"
PATIENCE = 60.0  # seconds, on the mocked clock, that a client of the port is taken to wait


class MockedControlPlane:
    """Everything that is registered and deployed while a workspace is mocked.

    It starts with the outcome of the tutorial's part one: a model and an environment.

    Attributes
    ----------
    workspace : MockedWorkspace
    behavior : Behavior
        What the test has set.
    """

    workspace: connections.MockedWorkspace

    def __init__(self, *, listen: bool) -> None:
        self.behavior = Behavior()
        self.cloud = MockedCloud(self.behavior)
        self._listen = listen
        self._client: Any = None
        self._stack = ExitStack()

    def __enter__(self) -> MockedControlPlane:
        with ExitStack() as stack:
            self._open(stack)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _open(self, stack: ExitStack) -> None:
        folder = Path(tempfile.mkdtemp(prefix="mnist-deploy-mocked-"))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        self._store = store = Store(folder / "store", in_memory=True)
        stack.callback(store.close)
        runtime = MemoryRuntime(store, folder / "containers", self.cloud, self.behavior)
        self.behavior.on_change = runtime.wake
        self._endpoints = endpoints = Endpoints(store, runtime)
        stack.callback(endpoints.stop_all)
        register_part_one(store)
        app, token = routes(), mocked_token()
        subscriptions = {connections.SUBSCRIPTION}
        state = AppState(store, endpoints, token, network.CONTROL_HOST, subscriptions)
        set_state(app, state, ClientRegistrations())
        if self._listen:
            runtime.base = stack.enter_context(serve(runtime))
        for patches in (
            network.answer_in_memory(app, runtime),
            network.block_connections(self.behavior.note),
            connections.note_caught(self.behavior.note_caught),
            connections.replace_waiting(self.cloud.clock),
        ):
            for patch in patches:
                stack.enter_context(patch)
        self.workspace = connections.connect(token, self.cloud)
        make_client = self._client_maker(token, runtime, stack)
        for patches in (
            connections.lead_sdk_v2(token),
            connections.lead_connections(self.workspace, make_client),
            connections.record_calls(self.cloud.spies),
        ):
            for patch in patches:
                stack.enter_context(patch)
        if "azure.ai.ml" in sys.modules:
            self._lead_clients(runtime, make_client, stack)

    def _client_maker(
        self, token: str, runtime: MemoryRuntime, stack: ExitStack
    ) -> Callable[[], Any]:
        def make() -> Any:
            if self._client is None:
                from . import client  # and with it SDK v2, for tests that connect with that

                self._lead_clients(runtime, make, self._stack)
                self._client = client.make_client(token, self.cloud)
            return self._client

        return make

    def _lead_clients(
        self, runtime: MemoryRuntime, make_client: Callable[[], Any], stack: ExitStack
    ) -> None:
        if not runtime.leads_clients:
            from . import client

            runtime.leads_clients = True
            for patch in client.lead_clients(runtime, make_client):
                stack.enter_context(patch)

    def remaining(self) -> list[str]:
        """The services, endpoints and clusters that would go on costing money."""
        services = [each.name for each in self._endpoints.all("service")]
        endpoints = [f"the endpoint {each.name}" for each in self._endpoints.all("endpoint")]
        clusters = [c.name for c in self._store.all(Compute) if not c.resource_id]
        return [*services, *endpoints, *(f"the cluster {name}" for name in clusters)]


@cache
def routes() -> Flask:
    """The app of the local workspace: made once, as it takes a quarter of a second."""
    app = create_routes()
    app.config["PROPAGATE_EXCEPTIONS"] = True  # to the test: there is no process to log them
    return app


@cache
def mocked_token() -> str:
    return create_token()


def register_part_one(store: Store) -> None:
    """Register ``sklearn_mnist`` and ``tutorial-env``."""
    store.write(MODEL_PATH, [digits.pickled_model()])
    store.add(
        Model(
            MODEL_NAME,
            0,
            (MODEL_PATH,),
            now(),
            tags=digits.TAGS,
            properties=digits.model_properties(),
        )
    )
    definition = scoring_definition()
    store.add(
        Environment(
            ENVIRONMENT_NAME,
            "",
            now(),
            conda=definition["python"]["condaDependencies"],
            image=definition["docker"]["baseImage"],
            other={"v1": definition},
        )
    )


@cache
def scoring_definition() -> dict[str, Any]:
    """The environment as SDK v1 sends it."""
    environment = build_scoring_environment(ENVIRONMENT_NAME)
    serialized = type(environment)._serialize_to_dict(environment)
    return {name: value for name, value in serialized.items() if name not in ("name", "version")}


@contextmanager
def serve(runtime: MemoryRuntime) -> Iterator[str]:
    """Serve the mocked services on a port of the loopback; its URL."""

    @Request.application
    def app(request: Request) -> Any:
        _, kind, name, *rest = [*request.path.split("/"), "", ""]
        call = Call(
            request.method,
            "/" + "/".join(filter(None, rest)),
            request.query_string.decode(),
            CaseInsensitiveDict(request.headers.items()),
            request.get_data(),
            PATIENCE,
        )
        try:
            return runtime.answer(f"{kind}/{name}", call)
        except requests.RequestException:  # what a client in this process would have raised
            request.environ["werkzeug.socket"].close()
            raise

    server = make_server("127.0.0.1", 0, app, threaded=True)
    threading.Thread(target=server.serve_forever, args=(0.05,), name="mocked services").start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
