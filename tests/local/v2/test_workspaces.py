"""The workspace as SDK v2 reads it."""

from __future__ import annotations

import urllib.parse


def test_workspace_has_mlflow_tracking_uri(client):
    """azureml-mlflow replaces parts of it before every ``begin_create_or_update``.

    Workspaces_Get (REST), ``WorkspaceProperties.mlFlowTrackingUri``.
    """
    found = client.workspaces.get(client.workspace_name)
    uri = urllib.parse.urlsplit(found.mlflow_tracking_uri)
    assert (uri.scheme, uri.hostname) == ("azureml", "127.0.0.1")
    assert uri.path == f"/mlflow/v1.0{found.id}"
