"""The workspace as SDK v2 reads it."""

from __future__ import annotations

import urllib.parse

import pytest


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


def test_v1_workspace_gives_the_same_mlflow_tracking_uri(client, local_ws):
    pytest.importorskip("azureml.mlflow")
    uri = client.workspaces.get(client.workspace_name).mlflow_tracking_uri
    assert local_ws.get_mlflow_tracking_uri().rstrip("?") == uri
