"""Control plane killed within SDK v2's calls: each ends with a reason, and nothing is lost."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import socket
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from polling import wait_until
from test_control_plane_faults import processes_of

from mnist_deploy import local
from mnist_deploy.local.core.records import Code, Environment, Model
from mnist_deploy.local.core.store import Store
from mnist_deploy.local.discovery import OTHER_IDENTITIES

entities = pytest.importorskip("azure.ai.ml.entities")
from azure.ai.ml._artifacts import _blob_storage_helper  # noqa: E402
from azure.core.pipeline.transport import HttpTransport  # noqa: E402

pytestmark = pytest.mark.faults

SCRIPT = """
import os
def init(): pass
def run(raw): return os.listdir(os.environ["AZUREML_MODEL_DIR"])
"""
STEPS = ("model", "environment", "endpoint", "deployment", "invoke", "delete")
CALL_TIMEOUT = 30.0  # seconds for a call that was cut off


class Chain:
    """From a model to a response and its deletion, in a loop; records what was confirmed."""

    def __init__(self, client, folder: Path) -> None:
        self._client, self._folder, self._name = client, folder, folder.name
        (folder / "code").mkdir(parents=True)
        (folder / "code" / "score.py").write_text(f"{SCRIPT}# {folder.name}\n")
        (folder / "request.json").write_text("{}")
        self.models: dict[str, str] = {}  # digest by version
        self.environments: set[str] = set()
        self.doing, self.began = "", 0.0
        self.error: Exception | None = None
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def end(self) -> tuple[Exception, float]:
        """What the call that was cut off raised, and after how many seconds."""
        self._thread.join(CALL_TIMEOUT)
        assert self.error is not None, f"{self.doing} hangs"
        return self.error, self.ended - self.began

    def _work(self) -> None:
        try:
            while True:
                for step in STEPS:
                    self.doing, self.began = step, time.monotonic()
                    getattr(self, step)()
        except Exception as error:
            self.ended, self.error = time.monotonic(), error

    def model(self) -> None:
        (self._folder / "model.bin").write_bytes(content := os.urandom(100_000))
        wanted = entities.Model(name=self._name, path=str(self._folder / "model.bin"))
        self._model = self._client.models.create_or_update(wanted)
        self.models[self._model.version] = hashlib.sha256(content).hexdigest()

    def environment(self) -> None:
        conda = {"dependencies": [f"python=3.{len(self.environments)}"]}  # each time a new version
        wanted = entities.Environment(
            name=self._name, image="mcr.microsoft.com/x", conda_file=conda
        )
        self._environment = self._client.environments.create_or_update(wanted)
        self.environments.add(self._environment.version)

    def endpoint(self) -> None:
        wanted = entities.ManagedOnlineEndpoint(name=self._name)
        self._endpoint = self._client.online_endpoints.begin_create_or_update(wanted).result()

    def deployment(self) -> None:
        code = entities.CodeConfiguration(
            code=str(self._folder / "code"), scoring_script="score.py"
        )
        wanted = entities.ManagedOnlineDeployment(
            name="blue",
            endpoint_name=self._name,
            model=self._model.id,
            environment=self._environment.id,
            code_configuration=code,
            instance_type="Standard_DS3_v2",
        )
        self._client.online_deployments.begin_create_or_update(wanted).result()
        self._endpoint.traffic = {"blue": 100}
        self._client.online_endpoints.begin_create_or_update(self._endpoint).result()

    def invoke(self) -> None:
        request = str(self._folder / "request.json")
        answer = self._client.online_endpoints.invoke(self._name, request_file=request)
        assert json.loads(answer) == ["model.bin"]

    def delete(self) -> None:
        self._client.online_endpoints.begin_delete(self._name).result()


# The SDK replaces the message where an upload is cut off, and leaves out the host.
NAMED = ("local workspace", "127.0.0.1", "[SSL: ", "EOF occurred", "Connection aborted")


@pytest.fixture
def addresses(monkeypatch) -> set[str]:
    """The addresses that this process connects to; only the local identity is left."""
    for name in OTHER_IDENTITIES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AZURE_TOKEN_CREDENTIALS", "ManagedIdentityCredential")
    monkeypatch.setenv("MSI_ENDPOINT", "http://127.0.0.1:9/none")
    for name in ("AZUREML_CURRENT_CLOUD", "REQUESTS_CA_BUNDLE"):  # as before in the end
        monkeypatch.setenv(name, os.environ.get(name, ""))
    monkeypatch.setenv("AZUREML_CURRENT_CLOUD", "AzureCloud")
    # azure-storage-blob tries four times, and waits 15 seconds and longer in between.
    monkeypatch.setattr(HttpTransport, "sleep", lambda _, seconds: time.sleep(min(seconds, 0.1)))

    def give_up(seconds: float) -> None:
        raise ConnectionError("Connection aborted: not all files of the folder have arrived")

    # For files of a folder that were lost on the way, azure-ai-ml itself waits without end.
    monkeypatch.setattr(_blob_storage_helper, "time", SimpleNamespace(sleep=give_up))
    connected: set[str] = set()
    connect = socket.socket.connect

    def record(self: socket.socket, address) -> None:
        connected.add(str(address[0] if isinstance(address, tuple) else address))
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", record)
    return connected


def what_is_wrong(home: Path, chain: Chain) -> list[str]:
    """What the closed store lacks of what was confirmed, or has only in part."""
    store, name = Store(home / "store"), chain._name
    models = {str(each.version): each for each in store.all(Model) if each.name == name}
    digests = {
        version: hashlib.sha256(store.files(path)[0][1].read_bytes()).hexdigest()
        for version, each in models.items()
        for path in each.artifacts
    }
    environments = {each.version for each in store.all(Environment) if each.name == name}
    kept = [path for kind in (Model, Code) for each in store.all(kind) for path in each.artifacts]
    half = [path for path in kept if not store.files(path)]
    blobs = len(list((home / "store" / "blobs").iterdir()))
    found = [
        *(f"{name}:{each} is gone" for each in chain.models if each not in digests),
        *(f"{name}:{n} is damaged" for n, each in chain.models.items() if digests.get(n) != each),
        *(f"environment {each} is gone" for each in chain.environments - environments),
        *(f"{path} is not there" for path in half),
        *([f"{blobs} files for {len(kept)} models and codes"] if blobs != len(kept) else []),
    ]
    if len(digests) > len(chain.models) + 1 or len(environments) > len(chain.environments) + 1:
        found.append("more was registered than was requested")
    store.close()
    return found


def test_call_of_sdk_v2_ends_with_a_reason_when_the_control_plane_is_killed(
    home, tmp_path, account, addresses
):
    """Control plane killed at random moments of SDK v2's chain from a model to an answer."""
    chance = random.Random(13)
    doing: dict[str, list[float]] = {step: [] for step in STEPS}
    for turn in range(5 * len(STEPS)):
        endpoint = local.start(home)
        chain = Chain(local.connect_client(home), tmp_path / f"turn{turn}")
        wait_until(lambda: chain.doing == STEPS[turn % len(STEPS)])  # noqa: B023
        time.sleep(chance.uniform(0.0, 0.4))
        step = chain.doing
        os.kill(endpoint.pid, signal.SIGKILL)
        error, seconds = chain.end()
        doing[step].append(seconds)
        if not any(name in str(error) for name in NAMED):
            account.lost.append(f"{step} does not name the local workspace: {error!r}")
        wait_until(lambda: not processes_of(home), 5)
        account.lost += what_is_wrong(home, chain)
        account.times += 1

    assert addresses == {"127.0.0.1"}
    assert local.connect_client(home).workspaces.get("local").name == "local"
    account.found = ", ".join(
        f"{len(each)} in {step} (ended after {max(each, default=0):.1f} s at most)"
        for step, each in doing.items()
    )
