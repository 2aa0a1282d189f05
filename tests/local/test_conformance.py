"""Every answer of the control plane, against what Microsoft has published of its REST APIs."""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import swagger
from azureml.core import Environment, Model, Webservice, Workspace
from azureml.core.authentication import TokenAuthentication
from azureml.core.compute import AksCompute, ComputeTarget
from azureml.core.image import ContainerImage, Image
from azureml.core.webservice import AciWebservice, AksEndpoint, AksWebservice
from azureml.exceptions import ComputeTargetException
from weights_service import make_inference_config

from mnist_deploy import local
from mnist_deploy.local.core.endpoints import Endpoints
from mnist_deploy.local.core.process_runtime import ProcessRuntime
from mnist_deploy.local.core.store import Store
from mnist_deploy.local.discovery import ControlPlaneAddress
from mnist_deploy.local.listener import Listener
from mnist_deploy.local.server.app import create_app
from mnist_deploy.local.server.client_registrations import ClientRegistrations
from mnist_deploy.local.server.process import acquire_lock
from mnist_deploy.local.tls import create_server_context
from mnist_deploy.local.tokens import create_token

pytestmark = [
    pytest.mark.processes,
    pytest.mark.skipif(
        not swagger.DESCRIPTIONS.is_dir(),
        reason="Microsoft's descriptions are not in ../shared/azure-rest-spec, beside this folder",
    ),
]

WORKSPACE = (
    r"/subscriptions/[^/]+/resourceGroups/[^/]+"
    r"/providers/Microsoft\.MachineLearningServices/workspaces/[^/]+"
)
DESCRIBED = ("modelmanagement", "artifact", "machinelearningservices")

# Requests that the descriptions have in another form than the SDK sends them in.
FORMS = [
    # The SDK has origin, container and path at the end, the description before `contentinfo`.
    (rf"(/artifact/v2\.0{WORKSPACE}/artifacts)/(prefix/contentinfo|contentinfo)/([^/]+)/([^/]+)/.+",
     r"\1/\3/\4/\2"),
    (rf"(/artifact/v2\.0{WORKSPACE}/artifacts)/batch/metadata/([^/]+)/([^/]+)",
     r"\1/\2/\3/batch/metadata"),
    # Where the SDK reads clusters.
    (rf"/rp/workspaces({WORKSPACE}/computes.*)", r"\1"),
]  # fmt: skip

# Requests that the SDK sends and no description has.
NOT_DESCRIBED = {
    r"/environment/v1\.0/.*": "environments have a description of their own, not published",
    rf"/modelmanagement/v1\.0{WORKSPACE}/services/validate.*": "checks before a deployment",
    rf"/modelmanagement/v1\.0{WORKSPACE}/services/[^/]+/logs": "the container's log",
    rf"/modelmanagement/v1\.0{WORKSPACE}/images(/[^/]+)?": "container images, of 2018 and 2019",
    r"/blobs/[^/]+": "blob storage, which is another service",
    r"/discovery/[0-9a-f]{64}": "where the APIs are",
    r"/msi/[0-9a-f]{64}": "the managed identity's endpoint, which is another service",
    r"/subscriptions": "in Azure's description of subscriptions, which is not in the folder",
    r"/clients": "the local workspace's own",
    rf"{WORKSPACE}/computes/[^/]+/operations/last": "requested as an operation of Azure's",
}

# Fields that no description has, and what the SDK reads them for.
NEEDED = {
    "ContainerResourceRequirements.cpuLimit": "the SDK rejects a service on AKS without it",
    "ContainerResourceRequirements.memoryInGBLimit": "the SDK rejects a service on AKS without it",
    "AKS.properties.agentVmSize": "as the SDK spells agentVMSize",
    "AKS.properties.clusterPurpose": "the SDK rejects a cluster without it",
    "AKS.properties.loadBalancerSubnet": "the SDK rejects a cluster without it",
    "AKS.properties.loadBalancerType": "the SDK rejects a cluster without it",
    "AKSEndpointResponse.createdBy": "as of the other services",
    "AKSEndpointResponse.versions": "AksEndpoint.versions; the description calls them variants",
    "AKSServiceResponse.createdBy": "Webservice.created_by, which the SDK prints",
    "AKSServiceResponse.environmentImageRequest": "Webservice.environment is read from it",
    "ModelErrorResponse.correlation": "all of an error's text that Model.delete shows",
    "Workspace.sku": "Workspace.sku; later versions of the description have it",
    "ErrorResponse.target": "in Azure Resource Manager's common error schema, of later versions",
    "WorkspaceProperties.mlFlowTrackingUri": "Workspaces_Get of later versions; azureml-mlflow",
    "Model.createdBy": "Model.created_by, which the SDK prints",
    "Model.resourceRequirements": "Model.resource_configuration",
    "Model.sampleInputData": "Model.sample_input_dataset",
    "Model.sampleOutputData": "Model.sample_output_dataset",
    "Model.tags": "the parser for the models of a service reads tags, not kvTags",
    "ACIServiceResponse.createdBy": "Webservice.created_by, which the SDK prints",
    "ACIServiceResponse.environmentImageRequest": "Webservice.environment is read from it",
    "AsyncOperationStatus.streamingOperationLog": "what wait_for_deployment prints as it comes",
}


@dataclass
class Exchange:
    method: str
    path: str
    status: int
    answer: Any


class Recorder:
    """WSGI middleware that notes every request and what was answered."""

    def __init__(self, app: Any, exchanges: list[Exchange]) -> None:
        self._app, self._exchanges = app, exchanges

    def __call__(self, environ: dict, start_response: Any) -> list[bytes]:
        statuses: list[int] = []

        def note(status: str, headers: list, *more: Any) -> Any:
            statuses.append(int(status.split()[0]))
            return start_response(status, headers, *more)

        with contextlib.closing(self._app(environ, note)) as pieces:
            body = b"".join(pieces)
        with contextlib.suppress(ValueError):
            answer = json.loads(body) if body else None
            path = urlsplit(environ["REQUEST_URI"]).path
            exchange = Exchange(environ["REQUEST_METHOD"], path, statuses[-1], answer)
            self._exchanges.append(exchange)
        return [body]


@contextlib.contextmanager
def recorded(home: Path) -> Iterator[list[Exchange]]:
    """A local workspace in this process that clients join as any other; the exchanges with it."""
    runtime = home / "run"
    runtime.mkdir(parents=True)
    exchanges: list[Exchange] = []
    store = Store(home / "store")
    endpoints = Endpoints(store, ProcessRuntime(store, runtime / "containers"))
    listening = socket.create_server(("127.0.0.1", 0))
    host, token = f"127.0.0.1:{listening.getsockname()[1]}", create_token()
    app = Recorder(create_app(store, endpoints, ClientRegistrations(), token, host), exchanges)
    listener = Listener(
        listening, app, lambda _: None, tls=create_server_context(runtime), name="control plane"
    )
    ControlPlaneAddress(f"https://{host}", os.getpid(), token, runtime).write()
    try:
        with acquire_lock(runtime):
            yield exchanges
    finally:
        listener.close()
        endpoints.stop_all()
        store.close()


def deviations(exchanges: list[Exchange]) -> dict[tuple[str, str], str]:
    """Each kind of deviation, with the first request that showed it."""
    descriptions = [swagger.Description(name) for name in DESCRIBED]
    found: dict[tuple[str, str], str] = {}
    for exchange in exchanges:
        path = exchange.path
        for pattern, form in FORMS:
            path = re.sub(f"^{pattern}$", form, path)
        request = f"{exchange.method} {exchange.path} -> {exchange.status}"
        if any(re.fullmatch(pattern, path) for pattern in NOT_DESCRIBED):
            continue
        for description in descriptions:
            if described := description.find(path):
                for where, what in description.deviations(
                    described, exchange.method, exchange.status, exchange.answer
                ):
                    if where not in NEEDED:
                        found.setdefault((where, what), request)
                break
        else:
            found[path, "is in no description, and not among the exceptions"] = request
    return found


def show(found: dict[tuple[str, str], str]) -> str:
    return "\n".join(f"{where}: {what}   ({request})" for (where, what), request in found.items())


def use_all_calls(home: Path, folder: Path) -> None:
    """Every call of the SDK that the local workspace knows, and the errors that it answers."""
    ws = local.connect(home)
    (folder / "weights.txt").write_text("1 10 100")
    (folder / "large.bin").write_bytes(bytes(5 << 20))
    (folder / "folder" / "sub").mkdir(parents=True)
    (folder / "folder" / "sub" / "file").write_text("x")
    for path, name in (("weights.txt", "w"), ("folder", "f"), ("large.bin", "large")):
        model = Model.register(ws, path, name, tags={"a": "b"}, properties={"c": "d"})
        model.download(str(folder / f"{name}-fetched"))
    framed = Model.register(ws, "weights.txt", "w", description="d", model_framework="Custom",
                            model_framework_version="1")  # fmt: skip
    framed.add_tags({"e": "f"})
    framed.update(description="later")
    framed.add_properties({"g": "h"})
    Model(ws, "w", version=1)
    Model.list(ws, "w", tags=[["a", "b"]], latest=True)
    with pytest.raises(Exception, match="ModelNotFound"):
        Model(ws, "missing")
    environment = Environment("e").register(ws)
    Environment.get(ws, environment.name, version=environment.version)
    Environment.list(ws)
    with pytest.raises(Exception, match="EnvironmentNotFound"):
        Environment.get(ws, "missing")

    config = AciWebservice.deploy_configuration(1, 1, tags={"a": "b"}, properties={"c": "d"},
                                                description="x", auth_enabled=True)  # fmt: skip
    script = "def init(): pass\ndef run(raw): return 1\n"
    pinned = make_inference_config(folder, script, packages=("scikit-learn==0.22.1",))
    one, two = Model(ws, "w", version=1), Model(ws, "f")
    service = Model.deploy(ws, "svc", [one, two], pinned, config)
    service.wait_for_deployment(show_output=True)
    service.get_logs()
    service.get_keys()
    renewal = threading.Thread(target=service.regen_key, args=["Primary"])  # it sleeps for 5 s
    renewal.start()
    service.update(tags={"new": "tag"}, auth_enabled=False)
    service.wait_for_deployment()
    Webservice.list(ws, model_name="w")
    with pytest.raises(Exception, match="412"):
        one.delete()
    broken = make_inference_config(folder, "def init(): 1 / 0\ndef run(raw): pass\n")
    failed = Model.deploy(ws, "svc", [one], broken, config, overwrite=True)
    with pytest.raises(Exception, match="ZeroDivisionError"):
        failed.wait_for_deployment()
    Webservice(ws, "svc")
    renewal.join()
    failed.delete()
    failed.delete()
    with pytest.raises(Exception, match="WebserviceNotFound"):
        Webservice(ws, "svc")
    Model(ws, "large").delete()
    use_an_image(ws, folder)
    use_clusters(ws, folder)
    other_login = TokenAuthentication(lambda audience: "no.token.here", cloud="AzureCloud")
    other_login._cloud_type = ws._auth_object._cloud_type
    with contextlib.suppress(Exception):
        Workspace.get(ws.name, auth=other_login, subscription_id=ws.subscription_id,
                      resource_group="local")  # fmt: skip


def use_an_image(ws: Workspace, folder: Path) -> None:
    (folder / "score.py").write_text("def init(): pass\ndef run(raw): return 1\n")
    requested = ContainerImage.image_configuration("score.py", "python")
    config = AciWebservice.deploy_configuration()
    service = Webservice.deploy_from_model(ws, "imaged", [Model(ws, "f")], requested, config)
    service.wait_for_deployment()
    image = Image(ws, id=Webservice(ws, "imaged").image_id)
    Image.list(ws)
    service.delete()
    image.delete()


def use_clusters(ws: Workspace, folder: Path) -> None:
    cluster = ComputeTarget.create(ws, "cluster", AksCompute.provisioning_configuration())
    cluster.wait_for_completion()
    ComputeTarget.list(ws)
    script = make_inference_config(folder, "def init(): pass\ndef run(raw): return 1\n")
    config = AksWebservice.deploy_configuration(token_auth_enabled=True, memory_gb=1)
    service = Model.deploy(ws, "aks", [], script, config, cluster)
    service.wait_for_deployment()
    service.get_access_token()
    config = AksEndpoint.deploy_configuration(num_replicas=1, version_name="one")
    endpoint = Model.deploy(ws, "versions", [], script, config, cluster)
    endpoint.wait_for_deployment()
    endpoint.update_version("one", traffic_percentile=50, description="half")
    endpoint.wait_for_deployment()
    with pytest.raises(ComputeTargetException, match="first delete"):
        cluster.delete()
    for each in (service, endpoint, cluster):
        each.delete()


@pytest.fixture(scope="module")
def sdk_run(tmp_path_factory) -> list[Exchange]:
    folder = tmp_path_factory.mktemp("conformance")
    with pytest.MonkeyPatch.context() as patch, recorded(folder / "home") as exchanges:
        patch.setenv("REQUESTS_CA_BUNDLE", os.environ["REQUESTS_CA_BUNDLE"])
        patch.chdir(folder)
        use_all_calls(folder / "home", folder)
    return exchanges


def test_sdk_calls_get_responses_of_the_rest_description(sdk_run):
    assert len(sdk_run) > 60
    assert not (found := deviations(sdk_run)), show(found)


def test_error_responses_follow_their_schema(sdk_run):
    errors = [exchange for exchange in sdk_run if exchange.status >= 400]
    assert {error.status for error in errors} >= {404, 412}
    for error in errors:
        body = error.answer if "/modelmanagement/" in error.path else error.answer["error"]
        assert body["code"]
        assert body["message"]
        assert body.get("statusCode", error.status) == error.status


def test_listed_exceptions_are_all_needed(sdk_run):
    """An exception that no answer makes use of any more is to be deleted."""
    paths = [exchange.path for exchange in sdk_run]
    for pattern in NOT_DESCRIBED:
        if "msi" not in pattern:
            assert any(re.fullmatch(pattern, path) for path in paths), pattern


def test_deviation_from_the_description_is_found(sdk_run):
    """The comparison itself: wrong types, unknown fields and odd statuses do not slip through."""
    [model, *_] = [e for e in sdk_run if re.search(r"/models/w(:|%3A)1$", e.path)]
    changes = ({"version": "1"}, {"createdTime": "yesterday"}, {"odd": 1}, {"kvTags": {"a": 1}})
    for change in changes:
        spoiled = Exchange(model.method, model.path, 200, model.answer | change)
        [(where, _)] = deviations([spoiled])
        assert next(iter(change)) in where or "*" in where
    without = {key: value for key, value in model.answer.items() if key != "url"}
    assert deviations([Exchange(model.method, model.path, 200, without)])
    assert deviations([Exchange(model.method, model.path, 201, model.answer)])
    assert deviations([Exchange("GET", "/no/such/path", 200, {})])
