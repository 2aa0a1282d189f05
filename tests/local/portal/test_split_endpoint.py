"""The page's view of an endpoint that requires tokens and divides its traffic."""

from __future__ import annotations

import contextlib

import pytest
from flask import Flask

from mnist_deploy.local.core.container_spec import ContainerSpec, Upload
from mnist_deploy.local.core.deployments import DeploymentSpec
from mnist_deploy.local.core.endpoints import Endpoints, EndpointSpec
from mnist_deploy.local.core.faults import NotFound
from mnist_deploy.local.core.process_runtime import ProcessRuntime
from mnist_deploy.local.core.records import Environment, Model, now
from mnist_deploy.local.core.runs import Runs
from mnist_deploy.local.core.store import Store
from mnist_deploy.local.portal import downloads, listing
from mnist_deploy.local.portal.page import create_app
from mnist_deploy.local.portal.page_state import PageState
from mnist_deploy.local.rest import AppState

pytestmark = pytest.mark.processes
HOST = "127.0.0.1:1"


@pytest.fixture
def endpoints(tmp_path):
    store = Store(tmp_path / "store")
    endpoints = Endpoints(store, ProcessRuntime(store, tmp_path / "containers"))
    conda = {"dependencies": [f"numpy=={number}" for number in (1, 2)]}
    store.add(Environment("env", "", now(), conda=conda))
    deployments = {}
    for name, answer, environment in (("blue", 1, "env:1"), ("green", 2, "")):
        store.write(
            path := f"o/c/{name}.py", [f"def init(): 0\ndef run(_): return {answer}".encode()]
        )
        container_spec = ContainerSpec(
            "score.py", (Upload(path, "score.py"),), environment=environment
        )
        deployments[name] = DeploymentSpec(container_spec, replicas=answer)
    spec = EndpointSpec(deployments, {"blue": 90, "green": 10}, authentication="token")
    operation = endpoints.put("endpoint", "both", lambda _: spec)
    operation.wait(60)
    assert operation.state == "Succeeded"
    yield endpoints
    endpoints.stop_all()
    store.close()


@pytest.fixture
def page(endpoints, tmp_path):
    """The page's app, without its listener, and the token of a tab."""
    state = AppState(endpoints.store, endpoints, token="", host=HOST)
    tokens = state.add(PageState()).tokens
    state.add(Runs(endpoints.store))
    client = create_app(HOST, state).test_client()
    client.environ_base |= {
        "HTTP_HOST": HOST,
        "HTTP_ORIGIN": f"http://{HOST}",
        "HTTP_AUTHORIZATION": f"Bearer {tokens.issue()}",
    }
    return client


def test_split_endpoint_lists_shares_users_and_tokens(page):
    shown = page.get("/api/workspace", base_url=f"http://{HOST}").json
    [both] = shown["services"]
    assert both["authentication"] == "token"
    assert [
        (each["name"], each["traffic"], each["replicas"], each["state"])
        for each in both["deployments"]
    ] == [("blue", 90, 1, "Healthy"), ("green", 10, 2, "Healthy")]
    [environment] = shown["environments"]
    assert environment["used_by"] == [{"kind": "endpoint", "name": "both"}]

    def score(deployment: str) -> dict:
        requested = {"kind": "endpoint", "name": "both", "deployment": deployment}
        answer = page.post("/api/score", base_url=f"http://{HOST}", query_string=requested)
        return answer.json | {"answered": answer.status_code}

    assert [score(name)["body"] for name in ("blue", "green", "green")] == ["1", "2", "2"]
    assert score("")["body"] in ("1", "2")
    for unknown in ("red", "blue\r\nX-Injected: 1", "\N{GRINNING FACE}"):
        assert score(unknown)["answered"] == 404


def test_service_without_a_ready_container_answers_503_at_once(page, endpoints, monkeypatch):
    [both] = endpoints.all()
    for deployment in both.deployments.values():
        monkeypatch.setattr(deployment, "containers", [])
    requested = {"kind": "endpoint", "name": "both"}
    answer = page.post("/api/score", base_url=f"http://{HOST}", query_string=requested).json
    assert (answer["status"], "No container" in answer["body"]) == (503, True)


def test_record_that_cannot_be_listed_leaves_the_others_visible(page, monkeypatch, caplog):
    def fail(*_: object) -> None:
        raise KeyError("platform_release")

    monkeypatch.setattr(listing, "describe_deployment", fail)
    shown = page.get("/api/workspace", base_url=f"http://{HOST}").json
    [both] = shown["services"]
    assert both == {"name": "both", "kind": "endpoint", "broken": "KeyError: 'platform_release'"}
    assert len(shown["environments"]) == 1
    assert "both cannot be listed" in caplog.text


@pytest.mark.parametrize("name", ["a\nb.bin", "plain.bin"])
def test_model_file_with_any_name_is_downloaded_and_reported_when_missing(tmp_path, name):
    with contextlib.closing(Store(tmp_path)) as store:
        artifact = store.write(f"LocalUpload/c/{name}", [b"content"])
        record = store.add(Model("m", 0, (artifact.path,), now()))
        with Flask("test").test_request_context():
            response = downloads.send_record(store, record)
            response.direct_passthrough = False
            assert response.get_data() == b"content"
            response.close()
            expected = f"attachment; filename={name.replace(chr(10), '_')}"
            assert response.headers["Content-Disposition"] == expected
            artifact.file.unlink()
            with pytest.raises(NotFound):
                downloads.send_record(store, record)
