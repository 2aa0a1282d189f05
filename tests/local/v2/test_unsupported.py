"""What Azure has and the local workspace has not: 501, by the name that the SDK has for it."""

from __future__ import annotations

import pytest
from azure.ai.ml import MLClient
from azure.core.exceptions import HttpResponseError

CALLS = {
    "components.list": lambda client: list(client.components.list()),
    "batch_endpoints.begin_delete": lambda client: client.batch_endpoints.begin_delete("x"),
    "schedules.list": lambda client: list(client.schedules.list()),
    "connections.get": lambda client: client.connections.get("x"),
    "datastores.delete": lambda client: client.datastores.delete("workspaceblobstore"),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_call_is_refused_by_its_name(client, name):
    with pytest.raises(HttpResponseError) as refusal:
        CALLS[name](client)
    assert refusal.value.status_code == 501
    assert f"does not support {name} " in refusal.value.message


def test_registries_are_refused_here_and_asked_of_nobody_else(client):
    with pytest.raises(HttpResponseError, match="does not support registries"):
        MLClient(client._credential, registry_name="azureml", cloud=client._cloud)
