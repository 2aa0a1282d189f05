"""Logins of a reader's own under ``exec``: they reach the local workspace and no other host."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.processes

PROGRAM = """
import asyncio, json, socket, sys

hosts, connect = set(), socket.socket.connect
def record(self, address):
    hosts.add(str(address[0] if isinstance(address, tuple) else address))
    return connect(self, address)
socket.socket.connect = record

from azure.ai.ml import MLClient
from azure.identity import (ClientSecretCredential, DefaultAzureCredential, DeviceCodeCredential,
                            InteractiveBrowserCredential)
from azureml.core import Workspace
from azureml.core.authentication import InteractiveLoginAuthentication as Interactive
from azureml.core.authentication import ServicePrincipalAuthentication as ServicePrincipal

SUBSCRIPTION = "11111111-2222-3333-4444-555555555555"
OWN = {"subscription_id": SUBSCRIPTION, "resource_group": "rg"}

def get_by_sdk_v2(credential, **cloud):
    return MLClient(credential, SUBSCRIPTION, "rg", "mine", **cloud).workspaces.get("mine").name

async def get_tokens():
    from azure.identity.aio import ClientSecretCredential, DefaultAzureCredential
    scope = "https://management.azure.com/.default"
    async with DefaultAzureCredential() as one, ClientSecretCredential("t", "i", "s") as two:
        return [(await each.get_token(scope)).token[:2] for each in (one, two)]

found = {
    "get": Workspace.get("mine", **OWN).name,
    "constructor": Workspace(SUBSCRIPTION, "rg", "mine").name,
    "config": Workspace.from_config("config/aml.json").name,
    "placeholders": Workspace("<SUBSCRIPTION>", "<GROUP>", "<WORKSPACE>").name,
    "service principal": Workspace.get("mine", auth=ServicePrincipal("t", "i", "p"), **OWN).name,
    "interactive": Workspace.get("mine", auth=Interactive(tenant_id="t"), **OWN).name,
    "client secret": get_by_sdk_v2(ClientSecretCredential("t", "i", "s")),
    "browser": get_by_sdk_v2(InteractiveBrowserCredential(tenant_id="t")),
    "device code": get_by_sdk_v2(DeviceCodeCredential()),
    "cloud": get_by_sdk_v2(DefaultAzureCredential(), cloud="AzureCloud"),
    "aio": asyncio.run(get_tokens()),
    "hosts": sorted(hosts),
}
json.dump(found, open(sys.argv[1], "w"))
"""


def test_logins_of_the_reader_lead_to_the_local_workspace(tmp_path):
    """Articles "Set up authentication" of both SDKs, and azure-identity's credential classes."""
    (tmp_path / "program.py").write_text(PROGRAM)
    (tmp_path / "config").mkdir()
    config = {"subscription_id": "9" * 8, "resource_group": "rg", "workspace_name": "mine"}
    (tmp_path / "config" / "aml.json").write_text(json.dumps(config))
    command = [sys.executable, "program.py", "found.json"]
    done = subprocess.run(
        [sys.executable, "-m", "mnist_deploy.local", "exec", "--bare", "--", *command],
        cwd=tmp_path,
        env={**os.environ, "MNIST_DEPLOY_HOME": str(tmp_path / "home")},
        check=True,
        stderr=subprocess.PIPE,
        text=True,
        timeout=120,
    )
    found = json.loads((tmp_path / "found.json").read_text())
    assert found.pop("hosts") == ["127.0.0.1"]
    assert found.pop("aio") == ["ey", "ey"]
    assert found.pop("placeholders") == "<WORKSPACE>"
    assert set(found.values()) == {"mine"}
    for line in (
        "The local workspace is used for the subscription 11111111-2222-3333-4444-555555555555",
        "ServicePrincipalAuthentication logs in to the local workspace",
        "ClientSecretCredential logs in to the local workspace",
        "The local workspace is used for the cloud AzureCloud",
    ):
        assert done.stderr.count(line) == 1
