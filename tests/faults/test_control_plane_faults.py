"""The control plane dies, the disk fills, many want the same: nothing is lost or half there."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
import requests
from generated_requests import Sender, app_to_try
from polling import wait_until
from rest import MMS, Rest

from mnist_deploy import local
from mnist_deploy.local import control_plane
from mnist_deploy.local.core.records import Model
from mnist_deploy.local.core.store import Store

pytestmark = pytest.mark.faults

SCRIPT = "def init(): pass\ndef run(raw): return {answer!r}\n"


def processes_of(home: Path) -> list[psutil.Process]:
    """The scoring processes of the workspace in `home`."""
    return [
        process
        for process in psutil.process_iter(["cwd", "status"])
        if process.info["status"] != psutil.STATUS_ZOMBIE
        and str(home / "run" / "containers") in str(process.info["cwd"])
    ]


class Client:
    """Registers, deploys and deletes until the control plane ends; records what was confirmed."""

    def __init__(self, rest: Rest, name: str, chance: random.Random) -> None:
        self._rest, self._name, self._chance = rest, name, chance
        self.registered = {rest.register(name, b"the first")}  # acknowledged
        self.deleted: set[str] = set()  # acknowledged
        self.deleting: str | None = None
        self.doing = ""
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def join(self) -> None:
        self._thread.join(20)
        assert not self._thread.is_alive()

    def _work(self) -> None:
        steps = {"register": self._register, "delete": self._delete, "deploy": self._deploy}
        with contextlib.suppress(requests.ConnectionError):
            while True:
                [self.doing] = self._chance.choices(list(steps), weights=[20, 20, 1])
                steps[self.doing]()

    def _register(self) -> None:
        content = self._chance.randbytes(self._chance.randrange(1, 200_000))
        self.registered.add(self._rest.register(self._name, content))

    def _delete(self) -> None:
        if not self.registered:
            return
        self.deleting = self._chance.choice(sorted(self.registered))
        try:
            self._rest.delete_model(self.deleting)
        except requests.HTTPError as error:
            if error.response.status_code != 412:  # a service runs it
                raise
        else:
            self.registered.discard(self.deleting)
            self.deleted.add(self.deleting)
        self.deleting = None

    def _deploy(self) -> None:
        models = sorted(self.registered)[:1]
        script = SCRIPT.format(answer=self._name)
        self._rest.wait(self._rest.deploy("svc", script, models, overwrite=True))
        self._rest.delete_service("svc")


def test_store_is_complete_after_the_control_plane_is_killed(home, account):
    """Control plane killed at random moments of register, deploy and delete.

    Afterwards the store opens, and has what was confirmed, complete, and nothing else.
    """
    chance = random.Random(20)
    confirmed: set[str] = set()
    doing: dict[str, int] = {}
    endpoint = local.start(home)
    for turn in range(40):
        client = Client(Rest(endpoint), f"m{turn}", random.Random(turn))
        time.sleep(chance.uniform(0.0, 0.5))
        doing[client.doing] = doing.get(client.doing, 0) + 1
        os.kill(endpoint.pid, signal.SIGKILL)
        client.join()
        wait_until(lambda: not processes_of(home), 5)

        endpoint = local.start(home)
        rest = Rest(endpoint)
        models = rest.models()
        confirmed |= client.registered
        confirmed -= {client.deleting}  # which may be deleted or not
        account.lost += [f"{model} is gone" for model in confirmed - models.keys()]
        account.lost += [f"{model} is back" for model in client.deleted & models.keys()]
        account.lost += [f"{id_} is damaged" for id_, m in models.items() if not rest.is_whole(m)]
        blobs = list((home / "store" / "blobs").iterdir())
        if len(blobs) != len(models):
            account.lost.append(f"{len(blobs)} files for {len(models)} models")
        for model in list(models)[20:]:  # bounds what each round compares
            rest.delete_model(model)
        confirmed = set(list(models)[:20])
        account.times += 1
    account.found = ", ".join(f"{count} in {what}" for what, count in sorted(doing.items()))
    local.stop(home)
    with contextlib.closing(sqlite3.connect(home / "store" / "workspace.sqlite")) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)


FILL = """
import os, resource, sys, time
from pathlib import Path
from mnist_deploy import local

home, how = Path(sys.argv[1]), sys.argv[2]
if how == "limit":  # of a file's size, which the control plane inherits
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
ws = local.connect(home)
if how == "limit":
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
from azureml.core import Model
Path("small.bin").write_bytes(b"small")
Path("large.bin").write_bytes(os.urandom(30 << 20))
for number in range(5):
    Model.register(ws, "small.bin", "small")
if how == "last byte":  # no byte is left, also for the database
    with open(home / "ballast", "wb", buffering=0) as ballast:
        for size in (1 << 20, 1 << 12, 1):
            try:
                while True:
                    ballast.write(bytes(size))
            except OSError:
                pass
for number in range(5):
    began = time.monotonic()
    try:
        Model.register(ws, "small.bin" if how == "last byte" else "large.bin", "rejected")
    except Exception as error:
        print("REJECTED", round(time.monotonic() - began, 1), " ".join(str(error).split()))
    else:
        print("REGISTERED")
assert [m.name for m in Model.list(ws)] == ["small"] * 5
assert Path(Model(ws, "small").download("fetched")).read_bytes() == b"small"
if how == "last byte":
    os.unlink(home / "ballast")
    assert Model.register(ws, "small.bin", "small").version == 6
"""


@pytest.mark.parametrize("how", ["tmpfs", "last byte", "limit"])
def test_registration_on_a_full_disk_is_rejected_with_the_reason(tmp_path, account, how):
    """Disk full while registering, through the genuine SDK."""
    home = tmp_path / "home"
    home.mkdir()
    if how != "limit":
        mount = ["mount", "-t", "tmpfs", "-o", "size=12m,mode=700", "tmpfs", str(home)]
        if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode:
            pytest.skip("a small file system can only be mounted by root")
    try:
        done = subprocess.run(
            [sys.executable, "-c", FILL, str(home), how],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        attempts = [line for line in done.stdout.splitlines() if line.startswith("RE")]
        attempts = [line for line in attempts if not line.startswith("Registering")]
        account.times = len(attempts)
        account.lost += [
            line for line in attempts if "disk of the local workspace is full" not in line
        ]
        slowest = max(float(line.split()[1]) for line in attempts if line.startswith("REJECTED"))
        assert slowest < 20
        account.found = f"each rejected with the reason, the slowest after {slowest} s"
        wait_until(lambda: not (home / "run" / "endpoint.json").exists(), 10)
        store = Store(home / "store")
        names = [(model.name, model.version) for model in store.all(Model)]
        assert names == [("small", n) for n in range(5 + (how == "last byte"), 0, -1)]
        assert len(list((home / "store" / "blobs").iterdir())) == len(names)
        store.close()
    finally:
        local.stop(home)
        if how != "limit":
            subprocess.run(["umount", "-l", str(home)], capture_output=True)


SHARE = """
import json, sys
from pathlib import Path
from mnist_deploy import local
ws = local.connect(sys.argv[1])
from azureml.core import Environment, Model
from azureml.core.model import InferenceConfig
from azureml.core.webservice import AciWebservice
side, rounds = sys.argv[2], int(sys.argv[3])
environment = Environment("plain")
environment.python.user_managed_dependencies = True
config = AciWebservice.deploy_configuration(cpu_cores=1, memory_gb=1)
for number in range(rounds):
    answer = f"{side}-{number}"
    Path(f"{side}.txt").write_text(answer)
    model = Model.register(ws, f"{side}.txt", side)
    Path(f"{side}.py").write_text(
        "import os\\ndef init(): pass\\n"
        f"def run(raw): return open(os.environ['AZUREML_MODEL_DIR'] + '/{side}.txt').read()\\n")
    inference_config = InferenceConfig(f"{side}.py", environment=environment)
    service = Model.deploy(ws, side, [model], inference_config, config, overwrite=True)
    service.wait_for_deployment()
    got = [service.run("{}") for _ in range(3)]
    port = service.scoring_uri.split(":")[2].split("/")[0]
    if number % 2:
        service.delete()
    print("ROUND", json.dumps([answer, got, port]), flush=True)
"""


def test_services_of_two_processes_return_their_own_answers(home, tmp_path, account):
    """Two processes deploy, score and delete in one workspace at once."""
    local.start(home)
    clients = {
        side: subprocess.Popen(
            [sys.executable, "-c", SHARE, str(home), side, "25"],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for side in ("left", "right")
    }
    ports: dict[str, set[str]] = {}
    for side, client in clients.items():
        output, errors = client.communicate(timeout=280)
        assert client.returncode == 0, errors
        rounds = [json.loads(line[6:]) for line in output.splitlines() if line.startswith("ROUND")]
        account.times += len(rounds)
        account.lost += [f"{want}: {got}" for want, got, _ in rounds if got != [want] * 3]
        assert [want for want, _, _ in rounds] == [f"{side}-{number}" for number in range(25)]
        ports[side] = {port for _, _, port in rounds}
    models = Rest(local.start(home)).models()
    assert {f"{side}:{n}" for side in clients for n in range(1, 26)} == set(models)
    account.found = (
        f"{len(models)} models, each service answered for itself, no connection was refused"
    )


@pytest.mark.parametrize("seed", [2, 3])
def test_generated_request_gets_no_server_error(tmp_path, account, seed):
    """Generated requests on all routes."""
    with app_to_try(tmp_path) as app:
        sender = Sender(app, seed)
        sender.run(100)
    account.times = sender.sent()
    account.lost += [f"{request}: {answer}" for request, answer in sender.broken.items()]
    statuses = {status for each in sender.answers.values() for status in each}
    account.found = f"on {len(sender.answers)} routes, no status but {sorted(statuses)}"


def test_concurrent_changes_are_all_kept(home, account):
    """Changes of one model, one image and one environment by eight clients at once."""
    endpoint = local.start(home)
    rest = Rest(endpoint)
    model = rest.register("shared", b"x")
    script = f"aml://artifact/{rest.upload(b'', 'score.py')}"
    image = {
        "name": "image",
        "imageType": "Docker",
        "imageFlavor": "WebApiContainer",
        "driverProgram": "score.py",
        "targetRuntime": {"runtimeType": "Python", "properties": {}},
        "assets": [{"id": "score.py", "url": script}],
    }
    rest.call("POST", f"{MMS}/images", json=image)
    environments = MMS.replace("modelmanagement", "environment") + "/environments"

    def change(side: int) -> list[str]:
        client, versions = Rest(endpoint), []
        for number in range(10):
            add = [{"op": "add", "path": f"/kvTags/{side}-{number}", "value": "x"}]
            client.call("PATCH", f"{MMS}/models/{model}", json=add)
            client.call("PATCH", f"{MMS}/images/image:1", json=add)
            definition = {"environmentVariables": {"BY": f"{side}-{number}"}}
            answer = client.call("PUT", f"{environments}/shared", json=definition).json()
            versions.append(answer["version"])
            client.call("POST", f"{MMS}/images", json=image)
        return versions

    with ThreadPoolExecutor(8) as pool:
        versions = [version for each in pool.map(change, range(8)) for version in each]
    account.times = 8 * 10 * 4
    tags = [
        rest.models()[model]["kvTags"],
        rest.call("GET", f"{MMS}/images/image:1").json()["kvTags"],
    ]
    account.lost += [f"{80 - len(each)} tags" for each in tags if len(each) != 80]
    account.lost += [version for version in set(versions) if versions.count(version) > 1]
    images = rest.call("GET", f"{MMS}/images").json()["value"]
    if {each["version"] for each in images} != set(range(1, 82)):
        account.lost.append("an image's version")
    account.found = "160 tags, 80 versions of the environment, 81 of the image, all there"


def test_suspended_control_plane_is_named_in_the_error(home, account, monkeypatch):
    """Control plane suspended, joined by another process meanwhile, resumed or stopped."""
    monkeypatch.setattr(control_plane, "START_TIMEOUT", 3.0)
    monkeypatch.setattr(control_plane, "CALL_TIMEOUT", 0.5)
    for turn in range(6):
        endpoint = local.start(home)
        model = Rest(endpoint).register("kept", bytes([turn]))
        process = psutil.Process(endpoint.pid)
        process.suspend()
        try:
            local.start(home)
        except local.LocalWorkspaceError as error:
            if f"Process {endpoint.pid} (suspended)" not in str(error):
                account.lost.append(str(error))
        else:
            account.lost.append("joined a suspended control plane")
        if turn % 2:
            process.resume()
            if local.start(home) != endpoint:
                account.lost.append("another took its place")
        if not local.stop(home) or psutil.wait_procs([process], 5)[1]:
            account.lost.append("it did not end")
        if not Rest(local.start(home)).is_whole(Rest(local.start(home)).models()[model]):
            account.lost.append(model)
        account.times += 1
    account.found = (
        "the error names its process; joined after it was resumed; stopped while suspended"
    )
