"""Authentication, unsupported calls and connections of the control plane."""

from __future__ import annotations

import itertools
import re
import socket
import ssl
import time
from base64 import b64encode
from pathlib import Path

import psutil
import pytest
import requests
from azureml.core import Datastore, Workspace
from azureml.core.authentication import TokenAuthentication
from generated_requests import app_to_try
from polling import wait_until
from weights_service import WORKSPACE

from mnist_deploy.local.core.faults import Full
from mnist_deploy.local.rest import state_of
from mnist_deploy.local.tokens import derive


def test_workspace_has_the_genuine_sdk_classes_and_azure_clouds_stay_registered(local_ws, tmp_path):
    assert (type(local_ws), type(local_ws._auth_object)) == (Workspace, TokenAuthentication)
    assert (local_ws.name, local_ws.location, local_ws.sku) == ("local", "local", "Basic")
    local_ws.write_config(path=str(tmp_path))
    again = Workspace.from_config(auth=local_ws._auth_object)
    assert (again.name, again.subscription_id) == (local_ws.name, local_ws.subscription_id)
    azure = TokenAuthentication(lambda audience: "token", cloud="AzureCloud")
    assert azure._cloud_type.endpoints.resource_manager == "https://management.azure.com/"
    with pytest.raises(Exception, match="Workspace not found"):
        Workspace.get(
            "another",
            auth=local_ws._auth_object,
            subscription_id=local_ws.subscription_id,
            resource_group="local",
        )


# Requests without the token.


def test_routes_all_require_the_token(tmp_path):
    """Without a token and with a wrong one: all methods. With malformed ones: GET."""
    methods = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS")
    with app_to_try(tmp_path) as app:
        token, client = state_of(app).token, app.test_client()
        paths = {re.sub("<[^>]*>", "x", str(rule)) for rule in app.url_map.iter_rules()}
        paths -= {"/metadata/endpoints", "/v2.1/track"}  # for all; with a key in its body
        paths |= {"/", "/no/such/thing", "/blobs?prefix=a/b"}
        assert len(paths) > 40
        wrong = f"Bearer {token[:-1]}"
        for offered in ("", wrong, "Bearer", "Bearer x", f"Basic {token}"):
            sent = methods if offered in ("", wrong) else ("GET",)
            for path, method in itertools.product(paths, sent):
                answer = client.open(path, method=method, headers={"Authorization": offered})
                assert answer.status_code in (401, 403), (method, path, offered)
                if "xml" in answer.content_type:  # blob storage's own schema
                    assert method == "HEAD" or "<Code>AuthenticationFailed</Code>" in answer.text
                elif method != "HEAD" and "error_code" in answer.json:  # MLflow's
                    assert answer.json["error_code"] == "UNAUTHENTICATED"
                elif method != "HEAD":
                    assert answer.json.get("error", answer.json)["code"] == "AuthenticationFailed"


def test_plain_http_serves_the_cloud_metadata_only(endpoint):
    url = endpoint.url.replace("https", "http")
    [cloud] = requests.get(f"{url}/metadata/endpoints", timeout=10).json()
    host = endpoint.url.removeprefix("https://")
    assert (cloud["name"], cloud["resourceManager"]) == ("MnistDeployLocal", endpoint.url)
    assert cloud["suffixes"]["storage"] == f"@{host}"
    assert endpoint.token not in str(cloud)
    headers = {"Authorization": f"Bearer {endpoint.token}"}
    for path in ("/subscriptions", f"/msi/{derive(endpoint.token, 'msi')}", "/metadata/other"):
        assert requests.get(url + path, headers=headers, timeout=10).status_code in (401, 501), path


def test_secret_of_one_purpose_is_rejected_for_another(endpoint):
    def secret(purpose: str) -> str:
        return derive(endpoint.token, purpose)

    blob = b64encode(b"o/c/f").decode()
    for path, status in {
        f"/discovery/{secret('discovery')}": 200,
        f"/msi/{secret('discovery')}": 401,
        f"/msi/{secret('msi')}": 200,
        f"/blobs/{blob}?sig={secret(f'write {blob}')}": 403,
        f"/blobs/{blob}?sig={secret(f'read {blob}')}": 404,
        f"/blobs/{blob}?sig=%C3%A9": 403,
    }.items():
        url, trusted = endpoint.url + path, str(endpoint.certificate)
        assert requests.get(url, verify=trusted, timeout=10).status_code == status, path


def test_files_of_a_running_workspace_are_private(endpoint, service, local_home):
    for path in local_home.rglob("*"):
        if path.is_dir() and path.parent == local_home:
            assert path.stat().st_mode & 0o077 == 0, path
    secrets = [endpoint.token, *service.get_keys()]
    for path in local_home.rglob("*"):
        holds_secret = path.is_file() and any(s.encode() in path.read_bytes() for s in secrets)
        if holds_secret:
            assert path.name == "endpoint.json", path
            assert path.stat().st_mode & 0o077 == 0, path


def test_control_plane_and_containers_listen_on_loopback_only(endpoint, service):
    control_plane = psutil.Process(endpoint.pid)
    listening = {
        connection.laddr.ip
        for process in (control_plane, *control_plane.children(recursive=True))
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    }
    assert listening == {"127.0.0.1"}


# Unsupported calls.


@pytest.mark.parametrize(
    ("use", "named"),
    [
        (lambda ws: Datastore.register_azure_file_share(ws, "f", "s", "a", "t"), "data stores"),
        (lambda ws: ws.get_default_keyvault().get_secret("x"), "secret|keyvault"),
    ],
    ids=["Datastore", "Keyvault"],
)
def test_unsupported_sdk_call_is_rejected_by_name(local_ws, use, named):
    began = time.monotonic()
    with pytest.raises(Exception, match=rf"(?is)not support.*{named}"):
        use(local_ws)
    assert time.monotonic() - began < 20


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/history/v1.0/anything"), ("PATCH", "/subscriptions"), ("POST", WORKSPACE)],
)
def test_unknown_route_is_answered_501_with_method_and_path(call, method, path):
    answer = call(method, path)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (501, "NotImplemented")
    assert f"{method} {path}" in error["message"]


# Connections.


def test_full_disk_is_reported_by_every_write(tmp_path, monkeypatch):
    def fail(record: object) -> None:
        raise Full

    with app_to_try(tmp_path) as app:
        monkeypatch.setattr(state_of(app).store, "put", fail)
        answer = app.test_client().put(
            f"{WORKSPACE}/computes/cluster",
            json={"properties": {"computeType": "AKS"}},
            headers={"Authorization": f"Bearer {state_of(app).token}"},
            base_url="https://127.0.0.1",
        )
    assert (answer.status_code, answer.json["error"]["code"]) == (400, "InsufficientStorage")


def test_silent_client_does_not_delay_other_clients(endpoint, call):
    host, port = endpoint.url.removeprefix("https://").split(":")
    silent = [socket.create_connection((host, int(port)), timeout=5) for _ in range(50)]
    began = time.monotonic()
    assert call("GET", "/subscriptions").ok
    assert time.monotonic() - began < 10
    for connection in silent:
        connection.close()


def test_interrupted_upload_leaves_no_file(endpoint, call, local_home):
    path = f"/artifact/v2.0{WORKSPACE}/artifacts/batch/metadata/LocalUpload/broken"
    described = call("POST", path, json={"paths": [{"path": "half.bin"}]}).json()
    uri = described["artifactContentInformation"]["half.bin"]["contentUri"]
    host, port = endpoint.url.removeprefix("https://").split(":")
    context = ssl.create_default_context(cafile=str(endpoint.certificate))
    before = set((local_home / "store" / "blobs").iterdir())
    target = "/" + uri.split("/", 3)[3]
    with (
        socket.create_connection((host, int(port)), timeout=5) as plain,
        context.wrap_socket(plain, server_hostname=host) as connection,
    ):
        head = f"PUT {target} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 1000000\r\n\r\n"
        connection.sendall(head.encode() + b"x" * 1000)
    wait_until(lambda: not list((local_home / "store" / "staged").iterdir()))
    assert set((local_home / "store" / "blobs").iterdir()) == before


def test_control_plane_log_is_empty_without_errors(local_home, service):
    assert Path(local_home / "run" / "control_plane.log").read_text() == ""
