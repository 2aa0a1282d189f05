"""Lifecycle of the control plane: start, shared use, stop, and recovery from killed processes."""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import types
from pathlib import Path

import psutil
import pytest
import requests
from polling import wait_until
from terminal import runs_from

from mnist_deploy import local
from mnist_deploy.local import LocalWorkspaceError, control_plane
from mnist_deploy.local.discovery import ControlPlaneAddress
from mnist_deploy.local.host import filesystem
from mnist_deploy.local.tls import create_server_context

POSIX = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such call or mode")

CLIENT = """
import sys
from mnist_deploy import local
endpoint = local.start(sys.argv[1])
print(endpoint.pid, flush=True)
sys.stdin.read()
"""


CONNECT = "import sys; from mnist_deploy import local; local.connect(sys.argv[1])"


@pytest.fixture
def client(home):
    """Start client processes of the workspace in `home`, which end on request or are killed."""
    started = []

    def start(code: str = CLIENT, *, wait: bool = True) -> types.SimpleNamespace:
        process = subprocess.Popen(
            [sys.executable, "-c", code, str(home)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        found = types.SimpleNamespace(process=process)
        if wait:
            found.control_plane = psutil.Process(int(process.stdout.readline()))
        return found

    yield start
    for process in started:
        process.kill()
        process.communicate()


def is_gone(process: psutil.Process) -> bool:
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_control_plane_is_shared_and_stops_after_its_last_client(client, home):
    first = client()
    endpoint = ControlPlaneAddress.read(home / "run")
    second = client()
    assert second.control_plane == first.control_plane
    first.process.communicate("")
    time.sleep(1.2)  # two looks at who is still there
    assert not is_gone(second.control_plane)
    second.process.communicate("")
    wait_until(lambda: is_gone(first.control_plane), 5)
    assert ControlPlaneAddress.read(home / "run") is None
    with pytest.raises(requests.ConnectionError):
        requests.get(endpoint.url, verify=False, timeout=5)


@pytest.mark.processes
@pytest.mark.parametrize("name", ["kill", "terminate", pytest.param("SIGINT", marks=POSIX)])
def test_control_plane_stops_after_its_client_was_killed(client, name):
    only = client()
    if name == "SIGINT":
        only.process.send_signal(signal.SIGINT)
    else:
        getattr(only.process, name)()
    wait_until(lambda: is_gone(only.control_plane), 5)


@pytest.mark.processes
def test_control_plane_that_is_killed_during_its_start_leaves_no_process(client, home):
    starting = client(
        "import sys; from mnist_deploy import local; local.start(sys.argv[1])", wait=False
    )
    wait_until((home / "run" / "control_plane.log").exists, 20)
    starting.process.kill()
    wait_until(lambda: not runs_from(home), 10)


@pytest.mark.processes
def test_six_concurrent_clients_share_one_control_plane(client):
    clients = [client(wait=False) for _ in range(6)]
    pids = {int(each.process.stdout.readline()) for each in clients}
    assert len(pids) == 1


@pytest.mark.processes
def test_killed_control_plane_is_started_again(client, home):
    first = client()
    before = ControlPlaneAddress.read(home / "run")
    first.control_plane.kill()
    wait_until(lambda: is_gone(first.control_plane), 5)
    second = client()
    after = ControlPlaneAddress.read(home / "run")
    assert second.control_plane != first.control_plane
    assert after.token != before.token


@pytest.mark.processes
def test_stale_or_foreign_control_plane_address_is_ignored(client, home):
    """Another process on the recorded port lacks the certificate: its answers are ignored."""
    (folder := home.with_name("other")).mkdir()
    server = http.server.HTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler)
    server.socket = create_server_context(folder).wrap_socket(
        server.socket, server_side=True, do_handshake_on_connect=False
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    (home / "run").mkdir(parents=True)
    try:
        for port in (9, server.server_port):
            url = f"https://127.0.0.1:{port}"
            ControlPlaneAddress(url, os.getpid(), "token", home / "run").write()
            only = client()
            assert ControlPlaneAddress.read(home / "run").url != url
            only.process.communicate("")
            wait_until(lambda: is_gone(only.control_plane), 5)  # noqa: B023
    finally:
        server.shutdown()
        server.server_close()


@POSIX
def test_control_plane_has_its_own_process_session(client):
    """Signals of the terminal do not reach the control plane."""
    pid = client().control_plane.pid
    assert os.getsid(pid) == os.getpgid(pid) == pid != os.getsid(0)


@pytest.mark.processes
def test_suspended_control_plane_is_reported_after_a_timeout_and_can_be_stopped(
    client, home, monkeypatch
):
    monkeypatch.setattr(control_plane, "START_TIMEOUT", 2.0)
    monkeypatch.setattr(control_plane, "CALL_TIMEOUT", 0.5)
    running = client().control_plane
    endpoint = ControlPlaneAddress.read(home / "run")
    running.suspend()
    with pytest.raises(LocalWorkspaceError, match=rf"Process {running.pid} \(suspended\) runs"):
        local.start(home)
    assert ControlPlaneAddress.read(home / "run") == endpoint
    threading.Timer(1.0, running.resume).start()
    assert local.start(home) == endpoint
    running.suspend()
    local.wipe(home)
    assert is_gone(running)
    assert not any(home.iterdir())


@POSIX
@pytest.mark.processes
def test_unresponsive_control_plane_is_killed_by_stop(client, home, monkeypatch):
    for limit in ("CALL_TIMEOUT", "START_TIMEOUT", "SIGNAL_TIMEOUT"):
        monkeypatch.setattr(control_plane, limit, 0.5)
    monkeypatch.setattr(control_plane, "call", raise_time_out)
    running = client().control_plane
    monkeypatch.setattr(signal, "SIGTERM", signal.SIGWINCH)  # which it does not mind
    assert local.stop(home)
    assert is_gone(running)


def raise_time_out(*_: object) -> None:
    raise TimeoutError


def test_stop_ends_the_control_plane_of_all_clients(client, home):
    running = client()
    assert local.stop(home)
    wait_until(lambda: is_gone(running.control_plane), 5)
    assert running.process.poll() is None
    for never_ran in (home, home / "nowhere"):
        assert not local.stop(never_ran)
    assert not (home / "nowhere").exists()


def test_wipe_deletes_only_the_registered_records(client, home):
    client()
    (home / "mine.txt").write_text("not the workspace's")
    assert (home / "store" / "workspace.sqlite").exists()
    for _ in range(2):
        local.wipe(home)
        assert [path.name for path in home.iterdir()] == ["mine.txt"]
        (home / "store").mkdir()  # of which nothing runs, nor ever ran
    local.wipe(home / "nowhere")
    assert not (home / "nowhere").exists()


@pytest.mark.processes
def test_control_plane_listens_on_the_chosen_port(home, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(LocalWorkspaceError, match=r"Address already in use|10048"):
            local.start(home, port=port)
    assert local.start(home, port=port).url == f"https://127.0.0.1:{port}"


@pytest.mark.parametrize(
    "inside", ["a file", "a file/deeper", pytest.param("/proc/no/where", marks=POSIX), "a/" * 250]
)
def test_unusable_home_is_reported(tmp_path, inside):
    (tmp_path / "a file").write_text("")
    with pytest.raises(LocalWorkspaceError, match="MNIST_DEPLOY_HOME"):
        local.start(tmp_path / inside)


@pytest.mark.processes
def test_damaged_store_is_reported(tmp_path):
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "workspace.sqlite").write_bytes(b"no database " * 1000)
    with pytest.raises(LocalWorkspaceError, match=r"file is not a database.*local wipe") as raised:
        local.start(tmp_path)
    assert "Traceback" not in str(raised.value)
    local.wipe(tmp_path)
    assert local.start(tmp_path)
    local.stop(tmp_path)


@pytest.mark.processes
def test_store_without_its_database_is_rejected_and_keeps_its_files(tmp_path):
    address = local.start(tmp_path)
    blob = tmp_path / "store" / "blobs" / ("a" * 32)
    local.stop(tmp_path)
    blob.write_bytes(b"a model")
    for damage in (Path.unlink, lambda file: file.write_bytes(b"")):
        damage(tmp_path / "store" / "workspace.sqlite")
        with pytest.raises(LocalWorkspaceError, match=r"is missing or empty.*1 uploaded") as raised:
            local.start(tmp_path)
        assert "Traceback" not in str(raised.value)
        assert blob.read_bytes() == b"a model"
    assert address.pid != 0


@pytest.mark.processes
def test_store_of_a_later_version_is_rejected_in_one_sentence(tmp_path):
    (tmp_path / "store").mkdir()
    with contextlib.closing(sqlite3.connect(tmp_path / "store" / "workspace.sqlite")) as database:
        database.execute("PRAGMA user_version = 99")
    with pytest.raises(LocalWorkspaceError, match="later version of mnist_deploy") as raised:
        local.start(tmp_path)
    assert "Traceback" not in str(raised.value)


@pytest.mark.processes
def test_garbage_in_the_lock_file_is_ignored(client, home):
    running = client()
    (home / "run" / "alive").write_text("\u00b2 no number")
    assert local.start(home).pid == running.control_plane.pid


@POSIX
def test_run_folder_that_others_may_write_to_is_rejected(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run").chmod(0o777)
    with pytest.raises(LocalWorkspaceError, match="chmod 700"):
        local.start(tmp_path)
    assert list((tmp_path / "run").iterdir()) == []


@POSIX
def test_run_folder_of_another_user_is_rejected(tmp_path, monkeypatch):
    (tmp_path / "run").mkdir(mode=0o700)
    owner = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    with pytest.raises(LocalWorkspaceError, match=rf"another user \(id {owner}\)"):
        local.start(tmp_path)


@POSIX
def test_python_that_cannot_be_executed_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", str(tmp_path))
    with pytest.raises(
        LocalWorkspaceError, match=r"cannot start its control plane.*denied"
    ) as raised:
        local.start(tmp_path / "home")
    assert "MNIST_DEPLOY_HOME" not in str(raised.value)


@POSIX
def test_unknown_home_directory_is_explained(monkeypatch):
    for name in ("HOME", "MNIST_DEPLOY_HOME", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 2**31 - 7)  # of a container without a user
    with pytest.raises(LocalWorkspaceError, match="HOME is not set"):
        local.home_folder()


def test_clock_that_was_changed_is_named(client, home, monkeypatch):
    client()
    error = "certificate verify failed: certificate is not yet valid"

    def fail(*_: object) -> None:
        raise requests.exceptions.SSLError(error)

    monkeypatch.setattr(control_plane, "call", fail)
    with pytest.raises(LocalWorkspaceError, match="the clock of this machine was changed"):
        local.start(home)


@pytest.mark.processes
def test_metadata_url_that_does_not_answer_is_named(home):
    """SDK v2 logs the unreachable metadata URL and continues; SDK v1 fails."""
    done = subprocess.run(
        [sys.executable, "-c", CONNECT, str(home)],
        env={**os.environ, "ARM_CLOUD_METADATA_URL": "http://127.0.0.1:9/none"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    last = done.stderr.splitlines()[-1]
    assert "Unset that variable" in last, done.stderr
    assert "http://127.0.0.1:9/none" in last


@pytest.mark.processes
def test_folders_of_a_killed_control_plane_are_removed_at_the_next_start(client, home):
    first = client().control_plane
    [left] = Path(tempfile.gettempdir()).glob(f"mnist-deploy-{first.pid}-*")
    first.kill()
    wait_until(lambda: is_gone(first), 5)
    assert left.is_dir()
    wait_until(lambda: not psutil.pid_exists(first.pid), 5)
    local.start(home)
    assert not left.exists()


@POSIX
def test_read_only_store_is_reported(tmp_path):
    if os.geteuid() == 0:
        pytest.skip("root may write everywhere")
    tmp_path.chmod(0o500)
    with pytest.raises(LocalWorkspaceError, match="MNIST_DEPLOY_HOME"):
        local.start(tmp_path / "home")
    tmp_path.chmod(0o700)


def test_control_plane_that_keeps_the_lock_is_reported(tmp_path, monkeypatch):
    monkeypatch.setattr(control_plane, "LAUNCH_TIMEOUT", 0.2)
    (tmp_path / "run").mkdir()
    with open(tmp_path / "run" / "starting", "w") as file:
        filesystem.lock(file)
        with pytest.raises(LocalWorkspaceError, match="Another process"):
            local.start(tmp_path)


@POSIX
def test_lock_of_a_removed_file_excludes_no_process_and_is_acquired_again(tmp_path, monkeypatch):
    """`wipe` may remove the file between another process's open and its lock."""
    path, lock = tmp_path / "run" / "starting", filesystem.lock

    def remove_and_lock(descriptor: int, **options: bool) -> None:
        monkeypatch.setattr(filesystem, "lock", lock)
        path.unlink()
        lock(descriptor, **options)

    monkeypatch.setattr(filesystem, "lock", remove_and_lock)
    with control_plane.locked(path, remove=True):
        assert control_plane.try_lock(path) is None
    assert not path.exists()


@pytest.mark.processes
def test_working_directory_and_its_modules_do_not_affect_the_control_plane(
    home, tmp_path, monkeypatch
):
    folder = tmp_path / "notebooks"
    folder.mkdir()
    for name in ("flask", "jwt", "sqlite3", "secrets", "utils"):
        (folder / f"{name}.py").write_text("raise RuntimeError('the wrong module')\n")
    monkeypatch.chdir(folder)
    endpoint = local.start(home)
    assert Path(psutil.Process(endpoint.pid).cwd()) == home / "run"


def test_home_is_taken_from_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("MNIST_DEPLOY_HOME", str(tmp_path / "here"))
    assert local.home_folder() == tmp_path / "here"
    assert local.home_folder("/elsewhere") == Path("/elsewhere")
    monkeypatch.setenv("MNIST_DEPLOY_HOME", "~/there")
    assert local.home_folder() == Path.home() / "there"
    monkeypatch.delenv("MNIST_DEPLOY_HOME")
    assert local.home_folder().name == "mnist_deploy"


@POSIX
@pytest.mark.processes
@pytest.mark.parametrize("mask", [0o000, 0o022])
def test_files_are_private_under_every_umask_and_no_zombie_is_left(home, mask):
    before = os.umask(mask)
    try:
        endpoint = local.start(home)
    finally:
        os.umask(before)
    modes = {folder.stat().st_mode & 0o777 for folder in (home, home / "run", home / "store")}
    assert modes == {0o700}
    local.stop(home)
    wait_until(lambda: not psutil.pid_exists(endpoint.pid), 5)


# The state of a process after it has connected.

RECONNECT = """
import os, sys
from pathlib import Path
home = Path(sys.argv[1])
before = dict(os.environ)
import azureml.core
from azureml.core import Model, Workspace
from azureml.core.authentication import TokenAuthentication
from mnist_deploy import local

azure = TokenAuthentication(lambda audience: "t", cloud="AzureCloud")  # Azure came first
ws = local.connect(home)
Path("w.txt").write_text("1")
Model.register(ws, "w.txt", "kept")
local.stop(home)
ws = local.connect(home)  # another port, another certificate, another token
assert {m.name for m in Model.list(ws)} == {"kept"}
other = local.connect(home.with_name("other"))
assert Model.list(other) == []
assert {m.name for m in Model.list(ws)} == {"kept"}
azure = TokenAuthentication(lambda audience: "t", cloud="AzureCloud")  # and comes again
assert azure._cloud_type.endpoints.resource_manager == "https://management.azure.com/"
changed = {name for name in os.environ if os.environ.get(name) != before.get(name)}
print(sorted(changed - {"PWD", "KMP_INIT_AT_FORK", "KMP_DUPLICATE_LIB_OK"}))
local.stop(home)
local.stop(home.with_name("other"))
"""


@pytest.mark.processes
def test_process_can_reconnect_to_other_workspaces_and_azure(home, tmp_path):
    azure = tmp_path / "azure"  # a user of Azure's command line: the SDK keeps its clouds there
    azure.mkdir()
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", RECONNECT, str(home)],
            cwd=tmp_path,
            env={**os.environ, "AZURE_CONFIG_DIR": str(azure)},
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        assert (
            done.stdout.splitlines()[-1] == "['DOCKER_HOST', 'REQUESTS_CA_BUNDLE', 'SSL_CERT_FILE']"
        )
    assert not (azure / "cloudEndpoints.json").exists()


BARE = """
import sys
from azureml.core import Workspace
ws = Workspace.from_config(sys.argv[1])
print(ws.name, ws.location, ws.get_details()["name"])
"""


@pytest.mark.processes
def test_environment_variables_lead_from_config_to_the_local_workspace(home, tmp_path):
    endpoint = local.start(home)
    config = {"subscription_id": local.SUBSCRIPTION, "resource_group": "local",
              "workspace_name": "local"}  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config))
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", BARE, str(tmp_path / "config.json")],
            env={**os.environ, **endpoint.environment()},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.stdout.split() == ["local", "local", "local"], done.stderr
        local.stop(home)
        endpoint = local.start(home)  # at another port
