"""The workspace as SDK v2 reads it."""

from __future__ import annotations

import urllib.parse

import pytest
from azure.ai.ml import MLClient
from azure.ai.ml.entities import KubernetesCompute
from azure.core.exceptions import ResourceNotFoundError


def test_workspace_has_mlflow_tracking_uri(client, call):
    """azureml-mlflow replaces parts of it before every ``begin_create_or_update``.

    Workspaces_Get (REST), ``WorkspaceProperties.mlFlowTrackingUri``. Where azureml-mlflow is
    installed, the SDK replaces the version for MLflow 2 and 3.
    """
    found = client.workspaces.get(client.workspace_name)
    sent = call("GET", f"{found.id}?api-version=2024-10-01-preview").json()["properties"]
    for text, versions in ((sent["mlFlowTrackingUri"], ("v1.0",)),
                           (found.mlflow_tracking_uri, ("v1.0", "v2.0"))):  # fmt: skip
        uri = urllib.parse.urlsplit(text)
        assert (uri.scheme, uri.hostname) == ("azureml", "127.0.0.1")
        assert uri.path in [f"/mlflow/{version}{found.id}" for version in versions]


def test_v1_workspace_returns_the_same_mlflow_tracking_uri(client, local_ws):
    pytest.importorskip("azureml.mlflow")
    uri = client.workspaces.get(client.workspace_name).mlflow_tracking_uri
    assert local_ws.get_mlflow_tracking_uri().rstrip("?") == uri


CALLS = {
    "workspaces.get": lambda client: client.workspaces.get("other"),
    "models.list": lambda client: list(client.models.list()),
    "online_endpoints.list": lambda client: list(client.online_endpoints.list()),
    "environments.get": lambda client: client.environments.get("x", "1"),
    "compute.list": lambda client: list(client.compute.list()),
    "datastores.list": lambda client: list(client.datastores.list()),
}


@pytest.mark.parametrize("name", CALLS)
def test_workspace_of_another_name_is_not_found_by_any_call(client, name):
    """Azure Resource Manager answers ResourceNotFound below a workspace that does not exist."""
    other = MLClient(
        client._credential, client.subscription_id, client.resource_group_name, "other",
        cloud=client._cloud,
    )  # fmt: skip
    with pytest.raises(ResourceNotFoundError, match="no workspace local/other"):
        CALLS[name](other)


def test_placeholders_of_notebooks_are_names_of_subscription_group_workspace_and_compute(client):
    """Microsoft's notebooks leave names such as ``<SUBSCRIPTION_ID>`` to their readers."""
    names = ("<SUBSCRIPTION_ID>", "<RESOURCE_GROUP>", "<AML_WORKSPACE_NAME>")
    other = MLClient(client._credential, *names, cloud=client._cloud)
    assert other.workspaces.get(names[-1]).name == names[-1]
    compute = KubernetesCompute(name="<COMPUTE_NAME>", namespace="n")
    other.compute.begin_create_or_update(compute).result()
    assert other.compute.get("<COMPUTE_NAME>").name == "<COMPUTE_NAME>"
    other.compute.begin_delete("<COMPUTE_NAME>").result()
