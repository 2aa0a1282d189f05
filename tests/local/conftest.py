"""One local workspace for all tests of this folder, and services that several tests share."""

from __future__ import annotations

from pathlib import Path

import pytest
from sdk_polling import fast_deployment_polls
from weights_service import WORKSPACE, make_inference_config, register_weights

from mnist_deploy import local
from mnist_deploy.local.core.runs import Runs
from mnist_deploy.local.core.store import Store


@pytest.fixture(scope="session")
def local_home(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("local") / "home"


@pytest.fixture(scope="session", autouse=True)
def _fast_polls():
    with fast_deployment_polls():
        yield


@pytest.fixture(scope="session")
def local_ws(local_home):
    """The genuine SDK's Workspace, of a local workspace of these tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AZUREML_LOG_DEPRECATION_WARNING_ENABLED", "False")
        yield local.connect(local_home)
        local.stop(local_home)


@pytest.fixture(scope="session")
def endpoint(local_ws, local_home):
    """The address of the control plane of `local_ws`, and its token."""
    return local.start(local_home)


@pytest.fixture
def store(tmp_path):
    """A store without a control plane."""
    opened = Store(tmp_path / "store")
    yield opened
    opened.close()


@pytest.fixture
def runs(store) -> Runs:
    return Runs(store)


@pytest.fixture
def call(endpoint):
    """Send a request with the token to the control plane, without an SDK."""
    import requests

    with requests.Session() as session:
        session.trust_env = False
        session.verify = str(endpoint.certificate)
        session.headers["Authorization"] = f"Bearer {endpoint.token}"

        def send(method: str, path: str, **arguments) -> requests.Response:
            return session.request(method, endpoint.url + path, timeout=30, **arguments)

        yield send


@pytest.fixture
def mms() -> str:
    """The path below which models and services are managed."""
    return f"/modelmanagement/v1.0{WORKSPACE}"


@pytest.fixture(autouse=True)
def _working_directory(tmp_path, monkeypatch):
    """Model.register accepts files below the working directory only."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def weights_file(tmp_path) -> str:
    (tmp_path / "weights.txt").write_text("1 10 100")
    return "weights.txt"


@pytest.fixture(scope="session")
def registered(local_ws, tmp_path_factory):
    """A registered model whose weights are 1, 10 and 100."""
    return register_weights(local_ws, tmp_path_factory.mktemp("weights"), "weights")


@pytest.fixture
def inference_config(tmp_path):
    return make_inference_config(tmp_path)


@pytest.fixture(scope="session")
def service(local_ws, registered, tmp_path_factory):
    """A healthy service with keys, described and tagged: tests may read, not change."""
    from azureml.core import Model
    from azureml.core.webservice import AciWebservice

    deployed = Model.deploy(
        local_ws,
        "shared",
        [registered],
        make_inference_config(tmp_path_factory.mktemp("shared")),
        AciWebservice.deploy_configuration(
            cpu_cores=1,
            memory_gb=1,
            tags={"data": "weights"},
            properties={"made": "once"},
            description="shared",
            auth_enabled=True,
        ),
    )
    deployed.wait_for_deployment()
    yield deployed
    deployed.delete()
