"""What the page shows of an endpoint whose deployments share the traffic, behind tokens."""

from __future__ import annotations

import pytest

from mnist_deploy.local.core.container_spec import ContainerSpec, Upload
from mnist_deploy.local.core.deployments import DeploymentSpec
from mnist_deploy.local.core.endpoints import Endpoints, EndpointSpec
from mnist_deploy.local.core.process_runtime import ProcessRuntime
from mnist_deploy.local.core.records import Environment, now
from mnist_deploy.local.core.store import Store
from mnist_deploy.local.portal.authentication import Codes, Tokens
from mnist_deploy.local.portal.page import create_app

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
    tokens = Tokens()
    app = create_app(
        HOST,
        store=endpoints.store,
        endpoints=endpoints,
        codes=Codes(),
        tokens=tokens,
        extension_files={},
    )
    client = app.test_client()
    client.environ_base |= {
        "HTTP_HOST": HOST,
        "HTTP_ORIGIN": f"http://{HOST}",
        "HTTP_AUTHORIZATION": f"Bearer {tokens.issue()}",
    }
    return client


def test_shares_users_and_tokens(page):
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
        asked = {"kind": "endpoint", "name": "both", "deployment": deployment}
        return page.post("/api/score", base_url=f"http://{HOST}", query_string=asked).json

    assert [score(name)["body"] for name in ("blue", "green", "green")] == ["1", "2", "2"]
    assert score("")["body"] in ("1", "2")
    assert score("red")["status"] == 404
