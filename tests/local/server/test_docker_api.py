"""The Docker Engine API, by the genuine docker-py and by both SDKs' local modes.

The schemas are those of Docker's Engine API 1.44. Azure's articles: "Deploy and score a machine
learning model by using an online endpoint" (``local=True``) and, of SDK v1, "Deploy a model
locally" (`LocalWebservice`).
"""

from __future__ import annotations

import io
import socket
import stat
from pathlib import Path
from types import SimpleNamespace

import docker
import pytest
import requests
from azureml.core import Environment, Model
from azureml.core.conda_dependencies import CondaDependencies
from azureml.core.model import InferenceConfig
from azureml.core.webservice import LocalWebservice
from azureml.exceptions import WebserviceException
from weights_service import SCRIPT

from mnist_deploy.local.core.local_containers import LocalContainers
from mnist_deploy.local.discovery import is_local_docker_host
from mnist_deploy.local.host import networking
from mnist_deploy.local.listener import Listener
from mnist_deploy.local.server.docker_api import create_docker_app, find_docker_body_limit

FAILING = "def init():\n    raise ValueError('bad weights')\n\ndef run(raw): ...\n"

pytestmark = [
    pytest.mark.processes,
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),  # docker-py's connections
    pytest.mark.filterwarnings("ignore:requests session is not set"),
]


@pytest.fixture(autouse=True)
def _led_to_the_local_engine(endpoint, monkeypatch):
    monkeypatch.setenv("DOCKER_HOST", endpoint.docker_host)
    monkeypatch.delenv("HOSTNAME", raising=False)


@pytest.fixture
def engine():
    client = docker.from_env()
    yield client
    client.close()


@pytest.fixture
def code(tmp_path) -> Path:
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "score.py").write_text(SCRIPT)
    (tmp_path / "code" / "failing.py").write_text(FAILING)
    return tmp_path / "code"


@pytest.fixture(scope="module")
def environment():
    made = Environment("local-services")
    made.python.conda_dependencies = CondaDependencies.create(
        pip_packages=["azureml-defaults", "numpy", "no-such-package==1.2"]
    )
    return made


def inference(code: Path, environment: Environment, script: str = "score.py") -> InferenceConfig:
    return InferenceConfig(script, source_directory=str(code), environment=environment)


# docker-py


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="Windows has a port with a secret")
def test_socket_is_in_a_private_folder(endpoint):
    path = Path(endpoint.docker_socket)
    assert stat.S_ISSOCK(path.stat().st_mode)
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


@pytest.fixture
def port_with_secret(tmp_path):
    """The URL of an Engine API as Windows has it: at a port, below a secret."""
    secret = "5ec2e7" * 5 + "00"
    listening = networking.listen()
    port = listening.getsockname()[1]
    state = SimpleNamespace(local_containers=LocalContainers(tmp_path / "containers"))
    listener = Listener(
        listening,
        create_docker_app(state, secret),
        lambda received: find_docker_body_limit(received, secret),
    )
    yield f"tcp://127.0.0.1:{port}/{secret}"
    listener.close()


def test_docker_py_keeps_the_secret_in_the_path(port_with_secret, tmp_path):
    assert is_local_docker_host(port_with_secret)
    engine = docker.DockerClient(base_url=port_with_secret)
    assert engine.ping() is True
    (tmp_path / "Dockerfile").write_text("FROM x\n")
    list(engine.api.build(path=str(tmp_path), tag="built", decode=True))
    assert engine.images.get("built").tags == ["built:latest"]
    engine.close()


@pytest.mark.parametrize("secret", ["", "5ec2e7", "0" * 32, "%00", "\u00e9"])
def test_request_without_the_secret_is_rejected_before_its_body_is_read(port_with_secret, secret):
    host = port_with_secret.replace("tcp:", "http:").rpartition("/")[0]
    prefix = f"{host}/{secret}" if secret else host
    for method, path in (("GET", "/_ping"), ("GET", "/v1.44/containers/json"), ("POST", "/build")):
        answer = requests.request(method, prefix + path, data=b"x" * 100, timeout=10)
        assert answer.status_code == 403, path
        assert "DOCKER_HOST" in answer.json()["message"]


@pytest.mark.parametrize(
    ("value", "is_local"),
    [
        ("unix:///tmp/ended/mnist-deploy-docker.sock", True),
        ("tcp://127.0.0.1:49152/00112233445566778899aabbccddeeff", True),
        ("tcp://127.0.0.1:2375", False),
        ("tcp://10.0.0.1:49152/00112233445566778899aabbccddeeff", False),
        ("npipe:////./pipe/docker_engine", False),
        ("unix:///var/run/docker.sock", False),
    ],
)
def test_docker_host_of_a_local_workspace_is_recognized(value, is_local):
    assert is_local_docker_host(value) is is_local


def test_engine_reports_its_name_and_version(engine):
    assert engine.ping() is True
    assert engine.version()["Version"] == "mnist_deploy local workspace"
    assert engine.api.api_version == "1.44"


def test_calls_of_other_parts_of_docker_are_rejected(engine):
    with pytest.raises(docker.errors.APIError, match="does not support GET /volumes") as raised:
        engine.volumes.list()
    assert raised.value.status_code == 501


def test_unknown_container_and_image_are_not_found(engine):
    with pytest.raises(docker.errors.NotFound, match=r"\$HOSTNAME is exported"):
        engine.containers.get("0123456789ab")
    with pytest.raises(docker.errors.ImageNotFound, match=r"No such image: .* pulls no images"):
        engine.images.get("mcr.microsoft.com/azureml/x")
    with pytest.raises(docker.errors.NotFound):
        engine.images.pull("mcr.microsoft.com/azureml/x")


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"command": "bash"}, "a command"),
        ({"entrypoint": "bash"}, "an entrypoint"),
        ({"privileged": True}, "privileges"),
        (
            {"device_requests": [docker.types.DeviceRequest(count=-1, capabilities=[["gpu"]])]},
            "devices \\(local_enable_gpu=True\\)",
        ),
    ],
)
def test_options_that_only_docker_has_are_rejected(engine, options, reason):
    with pytest.raises(docker.errors.APIError, match=f"a local container with {reason}"):
        engine.containers.create("image", **options)


def test_logs_are_sent_in_frames_unless_the_container_has_a_terminal(engine, code, tmp_path):
    (tmp_path / "Dockerfile").write_text("FROM x\n")
    lines = list(engine.api.build(path=str(tmp_path), tag="frames", decode=True))
    assert lines[-1]["stream"].startswith("Successfully built")
    found = engine.images.get("frames")
    assert found.tags == ["frames:latest"]
    for terminal in (True, False):
        container = engine.containers.create(
            "frames",
            tty=terminal,
            labels={"of": "frames"},
            environment={"AML_APP_ROOT": "/var/azureml-app/code",
                         "AZUREML_ENTRY_SCRIPT": "failing.py"},
            volumes=[f"{code}:/var/azureml-app/code"],
        )  # fmt: skip
        container.start()
        while container.status != "exited":
            container.reload()
        assert container.attrs["State"]["ExitCode"] == 1
        assert b"ValueError: bad weights\n" in container.logs(tail=200)
        assert container.logs(tail=0) == b""
        container.remove()
    assert engine.containers.list(all=True, filters={"label": "of=frames"}) == []
    engine.images.remove(found.id)


def test_archive_of_a_container_that_does_not_exist_is_rejected(engine):
    with pytest.raises(docker.errors.NotFound):
        engine.api.put_archive("nothing-here", "/", io.BytesIO(b""))


# SDK v1


@pytest.fixture
def deploy(local_ws, code, environment):
    """Deploy a `LocalWebservice` that is deleted after the test."""
    services = []

    def deploy(name, models, script="score.py", port=None):
        config = LocalWebservice.deploy_configuration(port)
        wanted = inference(code, environment, script)
        services.append(Model.deploy(local_ws, name, models, wanted, config))
        return services[-1]

    yield deploy
    for service in services:
        if service.state != "deleted":
            service.delete()


def test_local_webservice_is_scored_reloaded_updated_and_listed(
    local_ws, registered, code, environment, deploy, call, weights_file
):
    service = deploy("local-one", [registered])
    service.wait_for_deployment()
    assert service.state == "running"
    assert service.run('{"data": [[1, 2, 3]]}') == [321.0]
    assert "weights are loaded" in service.get_logs()
    assert "environment: no-such-package: required ==1.2, installed none" in service.get_logs()
    assert [each.name for each in LocalWebservice.list(local_ws)] == ["local-one"]
    [shown] = [each for each in call("GET", "/workspace").json()["services"]
               if each["kind"] == "local"]  # fmt: skip
    assert (shown["name"], shown["state"]) == ("local-one", "Healthy")
    assert shown["uri"] == f"http://127.0.0.1:{service.port}/score"

    (code / "score.py").write_text(SCRIPT.replace("float(", "-float("))
    service.reload(wait=True)
    assert service.run('{"data": [[1, 2, 3]]}') == [-321.0]

    Path(weights_file).write_text("2 20 200")  # a file of this machine, not registered
    service.update([weights_file], inference_config=inference(code, environment), wait=True)
    assert service.run('{"data": [[1, 2, 3]]}') == [-642.0]
    uri = service.scoring_uri
    service.delete()
    assert LocalWebservice.list(local_ws, all=True) == []
    with pytest.raises(requests.ConnectionError):
        requests.get(uri, timeout=5)


def test_failed_init_of_a_local_webservice_is_reported_with_its_log(registered, deploy, capsys):
    service = deploy("local-failing", [registered], "failing.py")
    with pytest.raises(WebserviceException, match="Did your init method fail"):
        service.wait_for_deployment()
    assert "ValueError: bad weights" in capsys.readouterr().out
    assert service.state == "failed"


def test_port_of_a_local_webservice_that_is_taken_is_reported(registered, deploy):
    first = deploy("local-first", [registered])
    with pytest.raises(WebserviceException, match="port you are attempting to use is already"):
        deploy("local-second", [registered], port=int(first.port))


# SDK v2


@pytest.fixture
def ml_client(endpoint, monkeypatch, tmp_path):
    """The genuine MLClient; the sleep of 15 s after a container's start is left out."""
    pytest.importorskip("azure.ai.ml")
    from azure.ai.ml._local_endpoints import docker_client

    from mnist_deploy import local

    monkeypatch.setattr(docker_client, "time", SimpleNamespace(sleep=lambda seconds: None))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AZUREML_CURRENT_CLOUD", "AzureCloud")
    return local.connect_client(endpoint.folder.parent)


def test_local_deployment_of_sdk_v2_completes_all_calls(ml_client, code, weights_file, tmp_path):
    from azure.ai.ml.entities import (
        CodeConfiguration,
        ManagedOnlineDeployment,
        ManagedOnlineEndpoint,
    )
    from azure.ai.ml.entities import Environment as EnvironmentV2
    from azure.ai.ml.entities import Model as ModelV2

    endpoints, deployments = ml_client.online_endpoints, ml_client.online_deployments
    endpoints.begin_create_or_update(ManagedOnlineEndpoint(name="local-v2"), local=True)
    wanted = ManagedOnlineDeployment(
        name="blue",
        endpoint_name="local-v2",
        model=ModelV2(path=str(Path(weights_file).absolute())),
        environment=EnvironmentV2(image="mcr.microsoft.com/azureml/minimal"),
        code_configuration=CodeConfiguration(code=str(code), scoring_script="score.py"),
        instance_type="Standard_DS3_v2",
        instance_count=1,
    )
    made = deployments.begin_create_or_update(wanted, local=True)
    assert made.provisioning_state == "Succeeded"
    (tmp_path / "request.json").write_text('{"data": [[1, 2, 3]]}')
    request = {"request_file": str(tmp_path / "request.json"), "local": True}
    assert endpoints.invoke("local-v2", **request) == "[321.0]"
    assert "weights are loaded" in deployments.get_logs("blue", "local-v2", lines=100, local=True)
    assert [each.name for each in endpoints.list(local=True)] == ["local-v2"]
    assert [each.name for each in deployments.list("local-v2", local=True)] == ["blue"]
    uri = endpoints.get("local-v2", local=True).scoring_uri
    assert requests.post(uri, json={"data": [[1, 0, 0]]}, timeout=30).json() == [1.0]
    deployments.begin_delete("blue", "local-v2", local=True)
    assert list(deployments.list("local-v2", local=True)) == []


def test_docker_host_of_the_user_is_kept(endpoint, monkeypatch):
    pytest.importorskip("azure.ai.ml")
    import os

    from mnist_deploy import local

    monkeypatch.setenv("AZUREML_CURRENT_CLOUD", "AzureCloud")
    for before, after in (
        ("unix:///var/run/docker.sock", "unix:///var/run/docker.sock"),
        ("unix:///tmp/ended/mnist-deploy-docker.sock", endpoint.docker_host),
    ):
        monkeypatch.setenv("DOCKER_HOST", before)
        local.connect_client(endpoint.folder.parent)
        assert os.environ["DOCKER_HOST"] == after
