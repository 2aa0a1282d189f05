"""A mocked workspace: the local workspace's app in this process, with all data in memory."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import Any

from flask import Flask

from mnist_deploy.environments import ENVIRONMENT_NAME, build_scoring_environment
from mnist_deploy.local.core.endpoints import Endpoints
from mnist_deploy.local.core.records import Compute, Environment, Model, now
from mnist_deploy.local.core.store import Store
from mnist_deploy.local.rest import AppState
from mnist_deploy.local.server.app import create_routes, set_state
from mnist_deploy.local.server.client_registrations import ClientRegistrations
from mnist_deploy.local.session_hooks.import_hooks import after_import
from mnist_deploy.local.tokens import create_token
from mnist_deploy.models import MODEL_FILE, MODEL_NAME

from . import connections, digits, network
from .behavior import Behavior
from .cloud import MockedCloud
from .containers import MemoryRuntime

SDK_V2 = "azure.ai.ml"


class MockedControlPlane:
    """The control plane of a mocked workspace, with its registered assets and deployments.

    The initial content is the result of the tutorial's part one: a model and an environment.
    """

    workspace: connections.MockedWorkspace

    def __init__(self, *, listen: bool) -> None:
        self.behavior = Behavior()
        self._cloud = MockedCloud(self.behavior)
        self._client: Any = None
        self._stack = ExitStack()
        try:
            self._start(listen)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self._stack.close()

    def _start(self, listen: bool) -> None:
        folder = Path(tempfile.mkdtemp(prefix="mnist-deploy-mocked-"))
        self._stack.callback(shutil.rmtree, folder, ignore_errors=True)
        self._store = store = Store(folder / "store", in_memory=True)
        self._stack.callback(store.close)
        cloud, behavior = self._cloud, self.behavior
        self._runtime = runtime = MemoryRuntime(store, folder / "containers", cloud, behavior)
        behavior.on_remove = runtime.wake
        self._endpoints = endpoints = Endpoints(store, runtime)
        self._stack.callback(endpoints.stop_all)
        register_part_one(store)
        app, subscriptions = routes(), {connections.SUBSCRIPTION}
        state = AppState(store, endpoints, token(), network.CONTROL_HOST, subscriptions)
        set_state(app, state, ClientRegistrations())
        if listen:
            runtime.base = self._stack.enter_context(network.serve(runtime))
        self._enter(
            network.answer_in_memory(app, runtime),
            network.block_connections(behavior.record),
            connections.record_caught(behavior.record_caught),
            connections.replace_waiting(cloud.clock),
        )
        self.workspace = connections.connect(token(), cloud)
        self._stack.enter_context(connections.set_variables(token()))
        self._enter(
            connections.replace_connections(self.workspace, self._connect_client),
            connections.record_calls(cloud.spies),
        )
        self._stack.enter_context(after_import(SDK_V2, self._replace_clients))

    def _enter(self, *patches: Iterator[connections.Patch]) -> None:
        for each in patches:
            for patch in each:
                self._stack.enter_context(patch)

    def _replace_clients(self, sdk: object) -> None:
        from . import client

        self._enter(client.replace_clients(self._runtime, self._connect_client))

    def _connect_client(self) -> Any:
        """Return the client of SDK v2; only tests that use SDK v2 import it."""
        if self._client is None:
            from . import client

            self._client = client.connect(token(), self._cloud)
        return self._client

    def remaining(self) -> list[str]:
        """Return the services, endpoints and clusters that would continue to cost money."""
        services = [each.name for each in self._endpoints.all("service")]
        endpoints = [f"the endpoint {each.name}" for each in self._endpoints.all("endpoint")]
        clusters = [c.name for c in self._store.all(Compute) if not c.resource_id]
        return [*services, *endpoints, *(f"the cluster {name}" for name in clusters)]


@cache
def routes() -> Flask:
    """Return the app of the local workspace, cached: its construction takes 0.25 s."""
    app = create_routes()
    app.config["PROPAGATE_EXCEPTIONS"] = True  # to the test: there is no process to log them
    return app


@cache
def token() -> str:
    return create_token()


def register_part_one(store: Store) -> None:
    """Register ``sklearn_mnist`` and ``tutorial-env``."""
    path = f"LocalUpload/start/{MODEL_FILE}"
    store.write(path, [digits.pickled_model()])
    properties = digits.model_properties()
    store.add(Model(MODEL_NAME, 0, (path,), now(), tags=digits.TAGS, properties=properties))
    definition = scoring_definition()
    conda, image = definition["python"]["condaDependencies"], definition["docker"]["baseImage"]
    other = {"v1": definition}
    store.add(Environment(ENVIRONMENT_NAME, "", now(), conda=conda, image=image, other=other))


@cache
def scoring_definition() -> dict[str, Any]:
    """Return the environment in the format of SDK v1."""
    environment = build_scoring_environment(ENVIRONMENT_NAME)
    serialized = type(environment)._serialize_to_dict(environment)
    return {name: value for name, value in serialized.items() if name not in ("name", "version")}
