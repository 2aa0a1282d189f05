"""The portal: authentication, scope of the token of a tab, and listings."""

from __future__ import annotations

import io
import itertools
import json
import time
import zipfile
from http.client import HTTPConnection
from types import SimpleNamespace
from urllib.parse import quote

import pytest
import requests
from generated_requests import ODD_BODIES, ODD_TEXTS
from polling import wait_until
from weights_service import WORKSPACE, make_inference_config

from mnist_deploy import local
from mnist_deploy.local.portal import authentication
from mnist_deploy.local.portal.authentication import Codes


class Tab:
    """An authenticated tab of a browser, which can send a forged origin."""

    def __init__(self, link: str) -> None:
        address, _, self.code = link.partition("/#code=")
        self.host = address.removeprefix("http://")
        self.headers = {"Host": self.host, "Origin": f"http://{self.host}"}
        answer = self.send("POST", "/api/token", body={"code": self.code})
        self.headers["Authorization"] = f"Bearer {answer.json['token']}"

    def send(self, method: str, path: str, *, body=None, **headers: str | None) -> SimpleNamespace:
        """Send a request with additional headers; a header that is None is left out."""
        wanted = self.headers | {name.replace("_", "-"): text for name, text in headers.items()}
        content = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        connection = HTTPConnection(*self.host.split(":"), timeout=30)
        connection.putrequest(method, path, skip_host=True)
        for name, text in wanted.items():
            if text is not None:
                connection.putheader(name, text)
        connection.putheader("Content-Length", str(len(content or b"")))
        connection.endheaders(content)
        answer = connection.getresponse()
        read = answer.read()
        connection.close()
        is_json = answer.headers.get_content_type() == "application/json"
        return SimpleNamespace(
            status=answer.status,
            headers=answer.headers,
            content=read,
            json=json.loads(read) if is_json and read else None,
        )


@pytest.fixture(scope="module")
def pad(tmp_path_factory):
    """An extension folder with a file that the page must not serve."""
    folder = tmp_path_factory.mktemp("pad")
    (folder / "pad.js").write_text("export const modes = [];")
    (folder / "secret.txt").write_text("not for the page")
    return folder


@pytest.fixture(scope="module")
def tab(local_ws, local_home, pad):
    return Tab(local.portal_link(local_home, files=pad))


SHARED = "kind=service&name=shared"
WORKSPACE_PATH = "/api/workspace"


# Authentication


def test_link_works_once_within_a_minute(tab, monkeypatch):
    again = tab.send("POST", "/api/token", body={"code": tab.code})
    assert (again.status, "used before" in again.json["message"]) == (401, True)
    codes = Codes()
    code = codes.issue("token")
    later = time.monotonic() + 61
    monkeypatch.setattr(time, "monotonic", lambda: later)
    assert codes.redeem(code) is None
    assert authentication.CODE_LIFETIME == 60


@pytest.mark.parametrize(
    ("method", "headers", "status"),
    [
        ("GET", {"Host": "attacker.example"}, 403),
        ("GET", {"Host": "localhost:{port}"}, 403),
        ("GET", {"Host": "127.0.0.1"}, 403),
        ("GET", {"Origin": "http://attacker.example"}, 403),
        ("GET", {"Origin": "http://localhost:{port}"}, 403),
        ("GET", {"Origin": "null"}, 403),
        ("POST", {"Origin": None}, 403),
        ("OPTIONS", {"Origin": "http://127.0.0.1:1"}, 403),
        ("GET", {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Dest": "iframe"}, 403),
        ("GET", {"Sec_Fetch_Site": "same-site", "Sec_Fetch_Dest": "script"}, 403),
        ("GET", {"Sec_Fetch_Site": "same-site", "Sec_Fetch_Dest": "empty"}, 403),
        ("GET", {"Authorization": None}, 401),
        ("GET", {"Authorization": "Bearer "}, 401),
        ("GET", {"Authorization": "Bearer {control_plane}"}, 401),
        ("GET", {"Authorization": "{own}x"}, 401),
    ],
)
@pytest.mark.parametrize("path", ["/", WORKSPACE_PATH, f"/api/score?{SHARED}", "/no/such/page"])
def test_unauthorized_request_is_rejected(tab, endpoint, method, path, headers, status):
    known = {"port": tab.host.rpartition(":")[2], "control_plane": endpoint.token,
             "own": tab.headers["Authorization"]}  # fmt: skip
    headers = {name: text and text.format(**known) for name, text in headers.items()}
    answer = tab.send(method, path, body=b"{}", **headers)
    if path == "/" and status == 401:
        assert answer.status == 200  # the page itself holds nothing
    else:
        assert answer.status == status
        assert set(answer.json) == {"message"}


def test_page_can_be_linked_but_not_framed(tab):
    """`test_page.py` checks that Chromium obeys these headers."""
    by_link = tab.send("GET", "/", Origin=None, Authorization=None,
                       Sec_Fetch_Site="cross-site", Sec_Fetch_Dest="document")  # fmt: skip
    assert by_link.status == 200
    for path in ("/", "/portal.js", "/extension/pad.js", WORKSPACE_PATH, "/no/such/page"):
        headers = tab.send("GET", path).headers
        policy = headers["Content-Security-Policy"]
        for directive in ("default-src 'none'", "frame-ancestors 'none'"):
            assert directive in policy
        assert "unsafe" not in policy
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert not {"Access-Control-Allow-Origin", "Set-Cookie"} & set(headers)


def test_token_of_a_tab_is_rejected_by_other_servers(tab, endpoint, service, mms):
    headers = {"Authorization": tab.headers["Authorization"]}
    known = {"headers": headers, "verify": str(endpoint.certificate), "timeout": 10}
    for method, path in (
        ("DELETE", f"{mms}/services/shared"),
        ("POST", f"{mms}/services/shared/listkeys"),
        ("GET", f"{mms}/models/weights:1"),
        ("POST", "/portal"),
        ("DELETE", "/clients"),
    ):
        assert tab.send(method, path).status == 404
        assert requests.request(method, endpoint.url + path, **known).status_code == 401
    writing = itertools.product(
        ("PUT", "PATCH", "DELETE"),
        (WORKSPACE_PATH, f"/api/score?{SHARED}", "/api/download", "/api/token"),
    )
    assert {tab.send(method, path).status for method, path in writing} == {405}
    assert service.get_keys()


def test_code_is_rejected_for_another_purpose(tab, registered, local_home):
    for_a_tab = local.portal_link(local_home).partition("#code=")[2]
    for_a_file = download_url(tab, "model", registered).rpartition("/")[2]
    assert tab.send("GET", f"/download/{for_a_tab}").status == 401
    assert tab.send("POST", "/api/token", body={"code": for_a_file}).status == 401


def test_only_files_of_the_page_are_served(tab, pad):
    assert tab.send("GET", "/extension/pad.js").content == (pad / "pad.js").read_bytes()
    for path in ("secret.txt", "..%2Fpad%2Fpad.js", "%2E%2E/run/endpoint.json", "pad.js%00", ""):
        assert tab.send("GET", f"/extension/{path}").status == 404


def test_invalid_link_request_is_rejected(local_home, tmp_path):
    with pytest.raises(local.LocalWorkspaceError, match=r"nowhere. cannot be read: .*No such file"):
        local.portal_link(local_home, files=tmp_path / "nowhere")
    with pytest.raises(local.LocalWorkspaceError, match="port"):
        local.portal_link(local_home, port=70000)


def test_malformed_portal_requests_get_client_errors(tab):
    posted = ("/api/token", "/api/download", "/api/score?kind=a&name=b")
    for path, body in itertools.product(posted, ODD_BODIES):
        assert 400 <= tab.send("POST", path, body=body).status < 500
    requested = ("/api/log", "/api/sample", "/api/score")
    for path, odd in itertools.product(requested, map(quote, ODD_TEXTS)):
        for query in (f"kind={odd}&name={odd}", f"{SHARED}&deployment={odd}", odd):
            assert tab.send("GET", f"{path}?{query}").status in (200, 400, 404, 405)
    for odd in map(quote, ODD_TEXTS):
        for path in ("/download/", "/extension/", "/"):
            assert tab.send("GET", path + odd).status in (200, 401, 404)


# Listings


def shared_service(tab) -> dict:
    services = tab.send("GET", WORKSPACE_PATH).json["services"]
    return next(each for each in services if each["name"] == "shared")


def test_services_models_and_environments_are_listed_as_json(tab, service, registered):
    deployed = shared_service(tab)
    [deployment] = deployed["deployments"]
    assert deployed["uri"] == service.scoring_uri
    assert (deployed["state"], deployed["authentication"]) == ("Healthy", "key")
    assert deployed["tags"] == {"data": "weights"}
    assert (deployment["traffic"], deployment["models"]) == (100, [registered.id])
    shown = tab.send("GET", WORKSPACE_PATH).json
    assert shown["modules"] == ["/extension/pad.js"]
    [model] = [each for each in shown["models"] if each["name"] == registered.name]
    assert (model["version"], model["size"], model["files"]) == ("1", 8, 1)
    assert {"kind": "service", "name": "shared"} in model["used_by"]


def test_service_is_scored_without_its_key_and_requests_are_counted(tab, service):
    def counts() -> dict:
        return shared_service(tab)["deployments"][0]["usage"]

    before = counts()
    answer = tab.send("POST", f"/api/score?{SHARED}", body={"data": [[1, 2, 3]]}).json
    assert (answer["status"], json.loads(answer["body"]), answer["cut"]) == (200, [321.0], False)
    assert tab.send("POST", f"/api/score?{SHARED}", body=b"no JSON").json["status"] >= 400
    wait_until(lambda: counts()["requests"] >= before["requests"] + 2)  # reported each second
    after = counts()
    assert after["failed"] > before["failed"]
    assert 0 < after["p50"] <= after["p95"] < 10
    assert tab.send("POST", "/api/score?kind=service&name=nowhere", body=b"").status == 404
    assert tab.send("POST", "/api/score", body=b"").status == 400
    assert tab.send("GET", f"/api/sample?{SHARED}").json["sample"] is None


def test_keys_are_never_sent_to_the_browser(tab, service):
    keys = [key.encode() for key in service.get_keys()]
    tab.send("POST", f"/api/score?{SHARED}", body={"data": [[1, 2, 3]]})
    for path in (WORKSPACE_PATH, f"/api/sample?{SHARED}", f"/api/log?{SHARED}&deployment=shared"):
        answer = tab.send("GET", path)
        assert answer.status == 200
        assert not any(key in answer.content for key in keys)
    assert "weights are loaded" in answer.json["log"]


# Downloads


def download_url(tab: Tab, kind: str, record) -> str:
    requested = {"kind": kind, "name": record.name, "version": str(record.version)}
    return tab.send("POST", "/api/download", body=requested).json["url"]


def test_download_code_of_a_model_works_once(tab, registered):
    url = download_url(tab, "model", registered)
    answer = tab.send("GET", url, Authorization=None, Origin=None)
    assert answer.content == b"1 10 100"
    assert answer.headers["Content-Disposition"] == "attachment; filename=weights.txt"
    assert tab.send("GET", url).status == 401
    for version in ("9", "9" * 30, "latest", ""):
        missing = {"kind": "model", "name": "weights", "version": version}
        assert tab.send("POST", "/api/download", body=missing).status == 404


def test_model_folder_and_environment_are_downloaded(tab, local_ws, tmp_path):
    from azureml.core import Environment, Model
    from azureml.core.conda_dependencies import CondaDependencies

    (tmp_path / "two").mkdir()
    for name in ("a", "b"):
        (tmp_path / "two" / name).write_text(name)
    folder = Model.register(local_ws, "two", "two-files")
    packed = tab.send("GET", download_url(tab, "model", folder)).content
    with zipfile.ZipFile(io.BytesIO(packed)) as archive:
        files = {name.rpartition("/")[2]: archive.read(name) for name in archive.namelist()}
    assert files == {"a": b"a", "b": b"b"}
    environment = Environment("portal-env")
    environment.python.conda_dependencies = CondaDependencies.create(pip_packages=["numpy"])
    url = download_url(tab, "environment", environment.register(local_ws))
    (tmp_path / "env.yml").write_bytes(tab.send("GET", url).content)
    again = Environment.from_conda_specification("again", str(tmp_path / "env.yml"))
    assert "numpy" in list(again.python.conda_dependencies.pip_packages)


def test_studio_url_of_the_sdk_is_the_page(tab, call, endpoint):
    discovery = call("GET", WORKSPACE).json()["properties"]["discoveryUrl"]
    studio = call("GET", discovery.removeprefix(endpoint.url)).json()["studio"]
    assert studio == f"http://{tab.host}"


SAMPLED = """
from inference_schema.parameter_types.standard_py_parameter_type import StandardPythonParameterType
from inference_schema.schema_decorators import input_schema

def init():
    pass

@input_schema("data", StandardPythonParameterType([{"length": 5.1, "width": 3.5}]))
def run(data):
    return len(data)
"""


@pytest.mark.processes
def test_sample_request_is_that_of_the_swagger_file(tab, local_ws, registered, tmp_path):
    from azureml.core import Model
    from azureml.core.webservice import AciWebservice

    service = Model.deploy(
        local_ws,
        "sampled",
        [registered],
        make_inference_config(tmp_path, SAMPLED),
        AciWebservice.deploy_configuration(1, 1),
    )
    service.wait_for_deployment()
    sampled = "kind=service&name=sampled"
    sample = tab.send("GET", f"/api/sample?{sampled}").json["sample"]
    assert json.loads(sample) == {"data": [{"length": 5.1, "width": 3.5}]}
    answer = tab.send("POST", f"/api/score?{sampled}", body=sample.encode()).json
    assert (answer["status"], answer["body"]) == (200, "1")
    service.delete()
