"""Endpoints of SDK v2: their address, keys and traffic."""

from __future__ import annotations

import pytest
import requests
from azure.ai.ml.entities import ManagedOnlineEndpoint
from azure.core.exceptions import HttpResponseError, ResourceNotFoundError


def test_endpoint_is_created_found_updated_and_deleted(client):
    endpoint = ManagedOnlineEndpoint(name="comes-and-goes", description="one", tags={"a": "b"})
    made = client.online_endpoints.begin_create_or_update(endpoint).result()
    assert (made.provisioning_state, made.traffic, made.auth_mode) == ("Succeeded", {}, "key")
    endpoint.description = "two"
    client.online_endpoints.begin_create_or_update(endpoint).result()
    [found] = [each for each in client.online_endpoints.list() if each.name == "comes-and-goes"]
    assert (found.description, found.tags) == ("two", {"a": "b"})
    assert found.scoring_uri == made.scoring_uri
    client.online_endpoints.begin_delete("comes-and-goes").result()
    with pytest.raises(ResourceNotFoundError, match="no endpoint comes-and-goes"):
        client.online_endpoints.get("comes-and-goes")


def test_key_is_authorized_until_it_is_regenerated(client, shared):
    def status(key: str) -> int:
        headers, body = {"Authorization": f"Bearer {key}"}, {"data": [[1, 2, 3]]}
        return requests.post(shared.scoring_uri, json=body, headers=headers, timeout=10).status_code

    before = client.online_endpoints.get_keys("shared")
    keys = (before.primary_key, before.secondary_key, "x")
    assert [status(key) for key in keys] == [200, 200, 401]
    client.online_endpoints.begin_regenerate_keys("shared", key_type="primary").result()
    after = client.online_endpoints.get_keys("shared")
    assert after.secondary_key == before.secondary_key
    assert [status(key) for key in (after.primary_key, before.primary_key)] == [200, 401]


@pytest.mark.parametrize(
    ("traffic", "mirror", "reason"),
    [
        ({"green": 100}, {}, "no deployment green"),
        ({"blue": 90}, {}, "adds up to 90 %"),
        ({"blue": 100}, {"blue": 10}, "receive both traffic and mirrored traffic"),
        ({}, {"blue": 60}, "At most 50 %"),
    ],
)
def test_invalid_traffic_is_rejected_with_its_reason(client, shared, traffic, mirror, reason):
    endpoint = ManagedOnlineEndpoint(name="shared", traffic=traffic, mirror_traffic=mirror)
    with pytest.raises(HttpResponseError, match=reason):
        client.online_endpoints.begin_create_or_update(endpoint).result()
    assert client.online_endpoints.get("shared").traffic == {"blue": 100}


def test_option_that_needs_azure_is_rejected(client):
    with pytest.raises(HttpResponseError, match="requires Microsoft Entra ID"):
        client.online_endpoints.begin_create_or_update(
            ManagedOnlineEndpoint(name="by-identity", auth_mode="aad_token")
        ).result()
