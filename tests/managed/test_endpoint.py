"""The helpers of SDK v2, on a genuine local workspace."""

from __future__ import annotations

import os
import subprocess
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
from mnist_deploy.managed.endpoint import divide_traffic

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
    """A function that writes score.py in the working directory."""
    monkeypatch.chdir(tmp_path)

    def write(text: str) -> str:
        (tmp_path / "score.py").write_text(text)
        return "score.py"

    write(SCRIPT)
    return write


def test_model_is_deployed_called_replaced_and_deleted(client, model, environment, script):
    options = {"name": "managed", "instance_type": "Standard_DS1_v2"}
    endpoint = deploy_to_endpoint(client, model, environment, **options)
    assert endpoint.traffic == {"blue": 100}
    assert call_endpoint(client, endpoint, IMAGES).tolist() == [105.25, 1.0]

    script(SCRIPT.replace("float(", "2 * float("))
    endpoint = deploy_to_endpoint(
        client, model, environment, deployment="green", traffic=0, **options
    )
    assert endpoint.traffic == {"blue": 100, "green": 0}
    assert call_endpoint(client, endpoint, IMAGES).tolist() == [105.25, 1.0]
    assert call_endpoint(client, endpoint, IMAGES, deployment="green").tolist() == [210.5, 2.0]

    script(SCRIPT.replace("global weights", "raise ImportError('torn')"))
    with pytest.raises(DeploymentError, match="ImportError: torn") as failure:
        deploy_to_endpoint(client, model, environment, deployment="red", traffic=0, **options)
    assert failure.value.state == "Failed"
    assert "ImportError: torn" in failure.value.logs
    assert "The first error: ImportError: torn\nCorrect its cause. Then deploy again." in str(
        failure.value
    )
    with pytest.raises(DeploymentError, match=r"deployed: .*'large' is not a VM size") as failure:
        deploy_to_endpoint(
            client, model, environment, name="managed", deployment="red", traffic=0,
            instance_type="large",
        )  # fmt: skip
    assert failure.value.logs == ""  # not the log of the deployment before

    with pytest.raises(ScriptFailed):
        call_endpoint(client, endpoint, np.zeros((1, 7)))
    delete_endpoint(client, endpoint)
    delete_endpoint(client, endpoint)
    with pytest.raises(AuthenticationFailed, match="no endpoint managed"):
        call_endpoint(client, endpoint, IMAGES)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "a"}, "'a' is not a valid name of an endpoint"),
        ({"deployment": "blue-"}, "'blue-' is not a valid name of a deployment"),
        ({"traffic": 101}, "traffic is 101"),
        ({"traffic": 30}, "traffic=30 is not possible"),
        ({"entry_script": "none.py"}, "There is no scoring script none.py"),
        ({"instance_type": "large"}, "'large' is not a VM size"),
    ],
)
def test_invalid_arguments_are_rejected(client, model, environment, script, options, message):
    try:
        with pytest.raises(DeploymentError, match=message):
            deploy_to_endpoint(client, model, environment, **{"name": "rejected"} | options)
    finally:
        client.online_endpoints.begin_delete("rejected").result()


@pytest.mark.parametrize(
    ("call", "message"),
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
            r"model is of <class 'azureml\.core\..*'>; expected the registered model that client",
        ),
    ],
)
def test_argument_of_the_wrong_class_is_rejected(client, call, message):
    with pytest.raises(TypeError, match=message):
        call(client)


def test_invalid_script_or_version_is_rejected_before_a_request(client, model, environment, script):
    script("def init(: pass")
    with pytest.raises(DeploymentError, match="cannot be compiled"):
        deploy_to_endpoint(client, model, environment, name="rejected")
    script(SCRIPT)
    model.properties = {"scikit-learn": "1.4.0"}
    with pytest.raises(DeploymentError, match=r"managed:1 was saved by scikit-learn 1\.4"):
        deploy_to_endpoint(client, model, environment, name="rejected")
    model.properties = {"scikit-learn": "1.5.2"}


def test_source_directory_is_uploaded_with_all_its_files(
    client, model, environment, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "source" / "deep").mkdir(parents=True)
    (tmp_path / "source" / "factor.py").write_text("FACTOR = 3\n")
    script = SCRIPT.replace("float(", "factor.FACTOR * float(").replace(
        "import json", "import factor, json"
    )
    (tmp_path / "source" / "deep" / "mine.py").write_text(script)
    endpoint = deploy_to_endpoint(
        client, model, environment, name="source", entry_script="deep/mine.py",
        source_directory="source",
    )  # fmt: skip
    try:
        assert call_endpoint(client, endpoint, IMAGES).tolist() == [315.75, 3.0]
    finally:
        delete_endpoint(client, endpoint)


def test_slow_deployment_raises_after_the_timeout(client, model, environment, script):
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
def test_other_deployments_divide_the_rest_in_proportion(present, share, expected):
    assert divide_traffic(present, "new", share) == expected
    assert sum(expected.values()) == 100


def test_azure_without_config_json_raises_config_error(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"No config\.json was found"):
        connect_client(local=False)
    with pytest.raises(ValueError, match="local=True selects the local workspace"):
        connect_client("config.json", local=True)


@pytest.mark.processes
@pytest.mark.parametrize("module", ["managed", "local"])
def test_child_process_of_a_connected_one_connects_too(client, module):
    """Although SDK v2 has set AZUREML_CURRENT_CLOUD to a cloud that this process alone defines."""
    program = f"from mnist_deploy.{module} import connect_client; print(connect_client()._cloud)"
    done = subprocess.run(
        [sys.executable, "-c", program],
        # Not Azure's list of clouds, if the SDK should look for the inherited one.
        env={**os.environ, "ARM_CLOUD_METADATA_URL": "http://127.0.0.1:9/none"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == client._cloud == os.environ["AZUREML_CURRENT_CLOUD"]


def test_missing_sdk_v2_is_reported_with_the_command_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "azure.ai.ml", None)
    with pytest.raises(WorkspaceError, match=r"pip install 'mnist-deploy\[sdk-v2\]'"):
        connect_client(local=True)
