"""``exec --bare``: ``MLClient.from_config`` finds the workspace; credentials send nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from mnist_deploy.local.discovery import OTHER_IDENTITIES

pytestmark = pytest.mark.processes

PROGRAM = """
import json, os, signal, socket, subprocess, sys, time

hosts, connect = set(), socket.socket.connect
def record_host(self, address):
    hosts.add(str(address[0] if isinstance(address, tuple) else address))
    return connect(self, address)
socket.socket.connect = record_host
started, popen = [], subprocess.Popen.__init__
def record_command(self, args, *more, **options):
    started.append(str(args))
    return popen(self, args, *more, **options)
subprocess.Popen.__init__ = record_command

from azure.ai.ml import MLClient
from azure.identity import DefaultAzureCredential

def timed(function):
    began = time.monotonic()
    try:
        function()
    except Exception as error:
        return time.monotonic() - began, f"{type(error).__name__}: {error}"

def make(*workspace):
    return MLClient(DefaultAzureCredential(), *workspace)

client = make("<SUBSCRIPTION_ID>", "<RESOURCE_GROUP>", "<WORKSPACE>")
probe = {
    "name": client.workspaces.get("<WORKSPACE>").name,
    "by config": MLClient.from_config(DefaultAzureCredential()).workspace_name,
    "other identities": [name for name in sys.argv[2:] if name in os.environ],
    "registry": timed(lambda: MLClient(DefaultAzureCredential(), registry_name="azureml")),
}
pid = json.load(open(os.environ["MNIST_DEPLOY_HOME"] + "/run/endpoint.json"))["pid"]
os.kill(pid, signal.SIGKILL)
time.sleep(0.5)
probe["old client"] = timed(lambda: client.models.get("x", "1"))
probe["new client"] = timed(lambda: make("s", "g", "w"))
probe["credential"] = timed(lambda: DefaultAzureCredential().get_token("https://x/.default"))
probe["hosts"], probe["started"] = sorted(hosts), started
json.dump(probe, open(sys.argv[1], "w"))
"""


def test_ml_client_from_config_reaches_the_workspace_and_no_other_address(tmp_path):
    (tmp_path / "program.py").write_text(PROGRAM)
    command = [sys.executable, "program.py", "probe.json", *OTHER_IDENTITIES]
    done = subprocess.run(
        [sys.executable, "-m", "mnist_deploy.local", "exec", "--bare", "--", *command],
        cwd=tmp_path,
        env={
            **os.environ,
            **dict.fromkeys(OTHER_IDENTITIES, "http://192.0.2.1/elsewhere"),
            "MNIST_DEPLOY_HOME": str(tmp_path / "home"),
        },
        check=True,
        stderr=subprocess.PIPE,
        text=True,
        timeout=120,
    )
    assert "ended before the command did" in done.stderr.splitlines()[-1]
    probe = json.loads((tmp_path / "probe.json").read_text())
    assert (probe["name"], probe["by config"]) == ("<WORKSPACE>", "local")
    assert probe["other identities"] == []
    assert "does not support registries" in probe["registry"][1]
    assert probe["hosts"] == ["127.0.0.1"]
    assert not [each for each in probe["started"] if "az " in each or "pwsh" in each]
    seconds, error = probe["old client"]
    assert seconds < 30  # what the SDK's own retries take
    assert "host='127.0.0.1'" in error
    seconds, error = probe["new client"]
    assert seconds < 30
    assert error == 'MlException: Unknown cloud environment supplied: "MnistDeployLocal".'
    seconds, error = probe["credential"]
    assert seconds < 30
    assert "ManagedIdentityCredential: HTTPSConnection(host='127.0.0.1'" in error
    assert "AzureCliCredential" not in error
