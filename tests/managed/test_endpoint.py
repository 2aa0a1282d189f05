"""The helpers of SDK v2, on a genuine local workspace."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from azureml.core import Environment as V1Environment
from weights_service import SCRIPT

from mnist_deploy.errors import (
    AuthenticationFailed,
    ConfigError,
    DeploymentError,
    DeploymentTimeout,
    ScriptFailed,
    WorkspaceError,
)
from mnist_deploy.managed import (
    call_endpoint,
    connect_client,
    delete_endpoint,
    deploy_to_endpoint,
    migrate_service,
)
from mnist_deploy.managed.endpoint import _share

IMAGES = np.array([[0.25, 0.5, 1.0], [1.0, 0.0, 0.0]])


@pytest.fixture(scope="module")
def model(client, tmp_path_factory):
    from azure.ai.ml.entities import Model

    folder = tmp_path_factory.mktemp("weights")
    (folder / "weights.txt").write_text("1 10 100")
    return client.models.create_or_update(
        Model(
            name="managed", path=str(folder / "weights.txt"), properties={"scikit-learn": "1.5.2"}
        )
    )


@pytest.fixture(scope="module")
def environment(client):
    from azure.ai.ml.entities import Environment

    conda = {"dependencies": ["python=3.11", {"pip": ["scikit-learn==1.5.2"]}]}
    return client.environments.create_or_update(
        Environment(name="managed", image="mcr.microsoft.com/x", conda_file=conda)
    )


@pytest.fixture
def script(tmp_path, monkeypatch):
    """The working directory has a score.py, which this writes."""
    monkeypatch.chdir(tmp_path)

    def write(text: str) -> str:
        (tmp_path / "score.py").write_text(text)
        return "score.py"

    write(SCRIPT)
    return write


def test_a_model_is_deployed_called_rolled_over_and_deleted(client, model, environment, script):
    wanted = {"name": "managed", "instance_type": "Standard_DS1_v2"}
    endpoint = deploy_to_endpoint(client, model, environment, **wanted)
    assert endpoint.traffic == {"blue": 100}
    assert call_endpoint(client, endpoint, IMAGES).tolist() == [105.25, 1.0]

    script(SCRIPT.replace("float(", "2 * float("))
    endpoint = deploy_to_endpoint(
        client, model, environment, deployment="green", traffic=0, **wanted
    )
    assert endpoint.traffic == {"blue": 100, "green": 0}
    assert call_endpoint(client, endpoint, IMAGES).tolist() == [105.25, 1.0]
    assert call_endpoint(client, endpoint, IMAGES, deployment="green").tolist() == [210.5, 2.0]

    script(SCRIPT.replace("global weights", "raise ImportError('torn')"))
    with pytest.raises(DeploymentError, match="ImportError: torn") as failure:
        deploy_to_endpoint(client, model, environment, deployment="red", traffic=0, **wanted)
    assert failure.value.state == "Failed"
    assert "ImportError: torn" in failure.value.logs
    assert "The first error: ImportError: torn\nMend that, then deploy again." in str(failure.value)
    with pytest.raises(DeploymentError, match=r"not be deployed: 'large' is no VM size") as failure:
        deploy_to_endpoint(
            client, model, environment, name="managed", deployment="red", traffic=0,
            instance_type="large",
        )  # fmt: skip
    assert failure.value.logs == ""  # and not that of the try before

    with pytest.raises(ScriptFailed):
        call_endpoint(client, endpoint, np.zeros((1, 7)))
    delete_endpoint(client, endpoint)
    delete_endpoint(client, endpoint)
    with pytest.raises(AuthenticationFailed, match="no endpoint managed"):
        call_endpoint(client, endpoint, IMAGES)


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        ({"name": "a"}, "'a' is no name for an endpoint"),
        ({"deployment": "blue-"}, "'blue-' is no name for a deployment"),
        ({"traffic": 101}, "traffic is 101"),
        ({"traffic": 30}, "cannot get 30 % of the traffic"),
        ({"entry_script": "none.py"}, "There is no scoring script none.py"),
        ({"instance_type": "large"}, "'large' is no VM size"),
    ],
)
def test_what_is_certain_to_fail_is_refused(client, model, environment, script, asked, reason):
    try:
        with pytest.raises(DeploymentError, match=reason):
            deploy_to_endpoint(client, model, environment, **{"name": "refused"} | asked)
    finally:
        client.online_endpoints.begin_delete("refused").result()


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (
            lambda client: call_endpoint(client, "digits", IMAGES),
            "expected the OnlineEndpoint that",
        ),
        (lambda client: delete_endpoint(client, "digits"), "endpoint is of type str"),
        (
            lambda client: migrate_service("svc", client, "v2", IMAGES),
            "expected the Webservice that",
        ),
        (
            lambda client: deploy_to_endpoint(client, V1Environment("e"), None, name="digits"),
            r"model is of <class 'azureml\.core\..*'>; expected the registered one that client",
        ),
    ],
)
def test_what_is_passed_in_the_wrong_place_says_what_belongs_there(client, call, told):
    with pytest.raises(TypeError, match=told):
        call(client)


def test_a_script_or_an_environment_that_does_not_fit_is_found_before(
    client, model, environment, script
):
    script("def init(: pass")
    with pytest.raises(DeploymentError, match="cannot be compiled"):
        deploy_to_endpoint(client, model, environment, name="refused")
    script(SCRIPT)
    model.properties = {"scikit-learn": "1.4.0"}
    with pytest.raises(DeploymentError, match=r"managed:1 was saved by scikit-learn 1\.4"):
        deploy_to_endpoint(client, model, environment, name="refused")
    model.properties = {"scikit-learn": "1.5.2"}


def test_no_more_than_the_given_time_is_waited(client, model, environment, script):
    script(SCRIPT.replace("print(", "import time; time.sleep(30)\n    print("))
    try:
        with pytest.raises(DeploymentTimeout, match="was not healthy within 1 s"):
            deploy_to_endpoint(client, model, environment, name="slow", timeout=1)
    finally:
        client.online_endpoints.begin_delete("slow").result()


@pytest.mark.parametrize(
    ("present", "share", "expected"),
    [
        ({}, 100, {"new": 100}),
        ({"blue": 100}, 10, {"blue": 90, "new": 10}),
        ({"blue": 100, "new": 0}, 0, {"blue": 100}),
        ({"a": 50, "b": 30, "c": 20}, 33, {"a": 34, "b": 20, "c": 13, "new": 33}),
        ({"a": 50, "new": 50}, 100, {"new": 100}),
    ],
)
def test_the_others_keep_their_traffic_in_proportion(present, share, expected):
    assert _share(present, "new", share) == expected
    assert sum(expected.values()) == 100


def test_azure_is_asked_where_a_config_says_so_and_only_then(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"No config\.json was found"):
        connect_client(local=False)
    with pytest.raises(ValueError, match="local=True selects the local one"):
        connect_client("config.json", local=True)


def test_who_has_no_sdk_v2_is_told_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "azure.ai.ml", None)
    with pytest.raises(WorkspaceError, match=r"pip install 'mnist-deploy\[sdk-v2\]'"):
        connect_client(local=True)
