"""Calls of SDK v2 that are not supported: 501, with the name that the SDK has for the call."""

from __future__ import annotations

import pytest
from azure.ai.ml import MLClient
from azure.core.exceptions import HttpResponseError

from mnist_deploy.local.v2 import unsupported

CALLS = {
    "components.list": lambda client: list(client.components.list()),
    "compute.list_nodes": lambda client: list(client.compute.list_nodes("x")),
    "connections.get": lambda client: client.connections.get("x"),
    "datastores.delete": lambda client: client.datastores.delete("workspaceblobstore"),
    "schedules.list": lambda client: list(client.schedules.list()),
    "workspaces.begin_diagnose": lambda client: client.workspaces.begin_diagnose("local").result(),
    "workspaces.begin_sync_keys": lambda client: client.workspaces.begin_sync_keys("local"),
    "workspaces.get_keys": lambda client: client.workspaces.get_keys("local"),
    "workspaces.list": lambda client: list(client.workspaces.list()),
}


@pytest.mark.parametrize("name", CALLS)
def test_unsupported_call_is_answered_501_with_its_name(client, name):
    with pytest.raises(HttpResponseError) as rejection:
        CALLS[name](client)
    assert rejection.value.status_code == 501
    assert f"does not support {name}." in rejection.value.message


def test_registries_are_rejected_without_a_request_to_another_host(client):
    with pytest.raises(HttpResponseError, match="does not support registries"):
        MLClient(client._credential, registry_name="azureml", cloud=client._cloud)


def test_names_in_the_table_are_calls_of_the_sdk(client):
    """The operation classes of ``azure.ai.ml.MLClient``."""
    names = [f"{client_name}.{call}" for client_name, calls in unsupported.CALLS.values()
             for call in calls.values()]  # fmt: skip
    names += [f"{each}.{call}" for each in unsupported.DEPLOYMENTS.values()
              for call in unsupported.NESTED.values()]  # fmt: skip
    names += [f"workspaces.{call}" for call in unsupported.WORKSPACE_CALLS.values()]
    names += unsupported.ACTIONS.values()
    unknown = []
    for name in set(names):
        operations, _, call = name.partition(".")
        if not hasattr(getattr(client, operations, None), call):
            unknown.append(name)
    assert unknown == []
