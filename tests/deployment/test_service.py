"""`deploy_to_aci` and `delete_service`: success, failures, and the messages of failures."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
import warnings
from pathlib import Path
from urllib.parse import urlsplit

import joblib
import numpy as np
import pytest
import requests
from azureml.core import Environment, Model
from azureml.core.webservice import AciWebservice, Webservice
from polling import wait_until
from sklearn.linear_model import LogisticRegression

from mnist_deploy import (
    build_aci_config,
    build_inference_config,
    closing_service,
    delete_service,
    deploy_to_aci,
    fetch_model,
)
from mnist_deploy.deployment import failure
from mnist_deploy.deployment import service as service_module
from mnist_deploy.environments import build_scoring_environment
from mnist_deploy.errors import DeploymentError, DeploymentTimeout
from mnist_deploy.sdk import Deadline

pytest_plugins = ["mnist_deploy.testing"]

ECHO = """
import json

def init():
    print("init was called")

def run(data):
    return json.loads(data)
"""
FAILING = ECHO.replace('print("init was called")', 'raise OSError("the model is not readable")')
HANGING = "import time\n" + ECHO.replace(
    'print("init was called")', 'print("waiting for a file", flush=True); time.sleep(600)'
)
NAME = "sklearn-mnist-svc3"
CALL = Deadline.call


@pytest.fixture
def slow_workspace(mocked_workspace):
    """The mocked workspace with the time-outs of a real one."""
    with pytest.MonkeyPatch.context() as patch:  # undone before the mock is
        patch.setattr(Deadline, "call", CALL)
        yield mocked_workspace


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture(autouse=True)
def _delete_services(ws):
    yield
    for service in Webservice.list(ws):
        service.delete()


@pytest.fixture(scope="module")
def model(ws, tmp_path_factory) -> Model:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("digits"))
        joblib.dump(LogisticRegression().fit(np.eye(4), [0, 0, 1, 1]), "digits.pkl")
        return Model.register(ws, "digits.pkl", "digits")


def configure(source: str, environment: Environment | None = None):
    Path("mine.py").write_text(textwrap.dedent(source))
    if environment is None:
        environment = Environment("mine")
        environment.python.user_managed_dependencies = True
    return build_inference_config(environment, "mine.py")


def deploy(ws, model, source: str = ECHO, *, aci: dict | None = None, **kwargs) -> AciWebservice:
    return deploy_to_aci(ws, model, configure(source), build_aci_config(**(aci or {})), **kwargs)


def score(service: AciWebservice, body: str, key: str | None = None) -> requests.Response:
    headers = {"Content-Type": "application/json"}
    if key is not None:
        headers["Authorization"] = f"Bearer {key}"
    return requests.post(service.scoring_uri, data=body, headers=headers, timeout=30)


def names(ws) -> list[str]:
    return [service.name for service in Webservice.list(ws)]


# --- success ---


def test_service_is_deployed_and_deleted(ws, model, capfd):
    with warnings.catch_warnings():
        warnings.simplefilter("error", FutureWarning)  # the SDK warns that it is retired
        service = deploy(ws, model, aci={"auth_enabled": True})
    assert type(service) is AciWebservice
    assert (service.name, service.state) == (NAME, "Healthy")
    assert service.tags == {}
    keys = service.get_keys()
    assert score(service, "[1, 2]", keys[0]).json() == [1, 2]
    delete_service(service)
    assert names(ws) == []
    delete_service(service)  # without an error
    shown = capfd.readouterr()
    assert f"deploying {NAME} 00:0" in shown.err
    assert shown.err.endswith("\r")
    assert not any(key in shown.out + shown.err for key in keys)


def test_script_prints_how_long_a_local_service_runs(ws, model, capsys, monkeypatch):
    """A notebook states it in its text."""
    line = "'python -m mnist_deploy.local serve' keeps it running."
    deploy(ws, model)
    assert line in capsys.readouterr().out
    monkeypatch.setattr(service_module, "find_kernel", object)
    deploy(ws, model, overwrite=True)
    assert line not in capsys.readouterr().out


def test_closing_service_deletes_the_service_after_an_exception(mocked_workspace):
    def use():
        with closing_service(deploy(mocked_workspace, fetch_model(mocked_workspace))):
            raise LookupError("in the block")

    with pytest.raises(LookupError, match="in the block"):
        use()
    assert names(mocked_workspace) == []


# --- an existing service ---


def test_existing_service_is_replaced_only_with_overwrite(mocked_workspace, capsys):
    """It is updated, so that its keys stay valid."""
    ws, model, aci = mocked_workspace, fetch_model(mocked_workspace), {"auth_enabled": True}
    old = deploy(ws, model, aci=aci, overwrite=True)
    message = r"already \(Healthy\)\. Pass overwrite=True"
    with pytest.raises(DeploymentError, match=message) as raised:
        deploy(ws, model)
    assert (raised.value.state, Model.deploy.call_count) == ("Healthy", 1)
    assert "Replacing" not in capsys.readouterr().out
    new = deploy(ws, model, aci=aci, overwrite=True)
    assert f"Replacing the service {NAME!r} (Healthy)" in capsys.readouterr().out
    assert (names(ws), new.get_keys()) == ([NAME], old.get_keys())


# --- failures ---


def test_failing_init_is_reported_with_the_log_and_can_be_replaced(ws, model, capfd):
    with pytest.raises(DeploymentError) as raised:
        deploy(ws, model, FAILING, timeout=60)
    error, message = raised.value, str(raised.value)
    assert not isinstance(error, DeploymentTimeout)
    assert error.state == "Failed"
    assert "OSError: the model is not readable" in error.logs
    assert len(error.logs.splitlines()) <= 30
    assert message.startswith(f"The service {NAME!r} could not be deployed: ")
    assert "Its state is Failed." in message
    assert error.logs in message
    assert (
        "The first error: OSError: the model is not readable\nCorrect its cause. Then deploy"
        in message
    )
    assert "overwrite=True" in message
    assert capfd.readouterr().err.count("Error") == 0  # the SDK logs nothing
    assert score(deploy(ws, model, overwrite=True, timeout=60), "[5]").json() == [5]
    assert f"Replacing the service {NAME!r} (Failed)" in capfd.readouterr().out


@pytest.mark.processes
def test_hanging_init_raises_after_the_timeout_and_can_be_replaced(ws, model):
    began = time.monotonic()
    with pytest.raises(DeploymentTimeout) as raised:
        deploy(ws, model, HANGING, timeout=8)
    assert 8 <= time.monotonic() - began < 8 + service_module.LOG_TIMEOUT + 10
    assert raised.value.state == "Transitioning"
    assert "waiting for a file" in raised.value.logs
    message = str(raised.value)
    assert f"The service {NAME!r} was not healthy within 8 s." in message
    assert "Its state is Transitioning." in message
    assert names(ws) == [NAME]
    assert score(deploy(ws, model, overwrite=True, timeout=60), "[5]").json() == [5]


@pytest.mark.parametrize(
    ("kind", "logs", "advice"),
    [
        (
            DeploymentError,
            "no Error\nx.y.OSError: gone\nKeyError: 1",
            "error: x.y.OSError: gone\nCorrect its cause.",
        ),
        (
            DeploymentError,
            "ModuleNotFoundError: No module named 'a'",
            "Add the package that provides a to the environment.",
        ),
        (DeploymentError, "SystemExit", "The first error: SystemExit"),
        (DeploymentError, "", "Correct the cause that is named above."),
        (DeploymentTimeout, "ValueError: x", "The first error: ValueError: x"),
        (DeploymentTimeout, "it starts", "The log has no error: init() may need more time."),
    ],
)
def test_advice_depends_on_the_first_error_of_the_log(kind, logs, advice):
    assert advice in failure.build_advice(kind, logs)


@pytest.mark.parametrize("is_package", [False, True])
def test_missing_local_module_is_answered_with_source_directory(tmp_path, is_package):
    if is_package:
        (tmp_path / "features").mkdir()
    else:
        (tmp_path / "features.py").touch()
    advice = failure.build_advice(
        DeploymentError, "ModuleNotFoundError: No module named 'features.scale'"
    )
    assert "features is a module of this folder" in advice
    assert "source_directory" in advice


def test_workspace_that_does_not_respond_raises_after_the_timeout(slow_workspace, monkeypatch):
    """Before the deployment, during it, and while the log is read."""
    ws, model, never = slow_workspace, fetch_model(slow_workspace), threading.Event()
    monkeypatch.setattr(service_module, "LOG_TIMEOUT", 0.3)
    with monkeypatch.context() as patch:
        patch.setattr(Webservice, "list", lambda *_, **__: never.wait(60))
        with pytest.raises(DeploymentTimeout, match=r"not healthy within 0\.5 s\. The call did"):
            deploy(ws, model, timeout=0.5)
    with monkeypatch.context() as patch:
        patch.setattr(Model, "deploy", lambda *_, **__: never.wait(60))
        with pytest.raises(DeploymentTimeout) as raised:
            deploy(ws, model, timeout=0.5)
    assert raised.value.state is None
    slow_workspace.cloud.never_finish()
    with monkeypatch.context() as patch:
        patch.setattr(Webservice, "get_logs", lambda *_, **__: never.wait(60))
        patch.setattr(AciWebservice, "update_deployment_state", lambda *_: never.wait(60))
        with pytest.raises(DeploymentTimeout, match="The log cannot be read: The call did not"):
            deploy(ws, model, timeout=3)
    never.set()


def test_service_that_fails_after_the_start_raises(mocked_workspace, monkeypatch):
    mocked_workspace.cloud.never_finish()
    with monkeypatch.context() as patch:
        patch.setattr(Webservice, "wait_for_deployment", lambda *_, **__: None)
        with pytest.raises(DeploymentError, match="became Transitioning after the start"):
            deploy(mocked_workspace, fetch_model(mocked_workspace))


@pytest.mark.processes
def test_ctrl_c_interrupts_and_prints_what_may_exist(ws, workspace_home, model, interruptible):
    """In a child process, while the service starts."""
    configure(HANGING)
    program = f"""
        from mnist_deploy import *
        ws = connect_workspace(local=True)
        from azureml.core import Environment
        environment = Environment("mine")
        environment.python.user_managed_dependencies = True
        config = build_inference_config(environment, "mine.py")
        deploy_to_aci(ws, fetch_model(ws, {model.name!r}), config, build_aci_config(), "stopped")
    """
    variables = os.environ | {"MNIST_DEPLOY_HOME": str(workspace_home), "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)],
        env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        wait_until(lambda: "stopped" in names(ws) or process.poll() is not None, 60)
        wait_until(lambda: "waiting for a file" in Webservice(ws, "stopped").get_logs(), 60)
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert time.monotonic() - began < 60
    assert "KeyboardInterrupt" in err
    assert "Interrupted. The service 'stopped' may exist: overwrite=True replaces it." in out
    assert names(ws) == ["stopped"]
    assert deploy(ws, model, name="stopped", overwrite=True, timeout=60).state == "Healthy"


def replace_responses(monkeypatch, **responses: tuple[int, dict | str, str]) -> None:
    """Respond to requests whose "METHOD path" contains a key with (status, body, location)."""
    genuine = requests.Session.request

    def request(session, method, url, *args, **kwargs):
        path = urlsplit(url).path
        for (verb, part), (status, body, location) in replaced.items():
            if method.upper() == verb and part in path:
                response = requests.Response()
                response.status_code = status
                response._content = (body if isinstance(body, str) else json.dumps(body)).encode()
                response.headers["Operation-Location"] = location
                return response
        return genuine(session, method, url, *args, **kwargs)

    replaced = {tuple(name.split(" ")): response for name, response in responses.items()}
    monkeypatch.setattr(requests.Session, "request", request)


NO_IMAGE = {
    "state": "Failed",
    "error": {"code": "ImageBuildFailed", "message": "Failed building the environment:\npip."},
    "operationDetails": {"subOperationType": "BuildEnvironment"},
    "operationLog": "http://builds.invalid/log?sig=S3CRET",
}


@pytest.mark.parametrize("status", [200, 403])
def test_failed_image_build_is_reported_with_its_log(mocked_workspace, monkeypatch, status):
    """As Azure reports it: there is no container yet, and the log of the build has its own URL."""
    ws, model = mocked_workspace, fetch_model(mocked_workspace)
    log = "Collecting sklearn\nBuildError: no such package"
    failed = {"GET /operations/": (200, NO_IMAGE, ""), "GET /log": (status, log, "")}
    replace_responses(monkeypatch, **failed)
    with pytest.raises(DeploymentError) as raised:
        deploy(ws, model)
    message = str(raised.value)
    assert "Its state is" in message
    assert "Failed building the environment: pip." in message
    assert "longer timeout" not in message
    assert "S3CRET" not in message
    if status == 200:
        assert raised.value.logs == log
        assert (
            "The first error: BuildError: no such package\nCorrect its cause. Then deploy"
            in message
        )
    else:
        assert raised.value.logs == ""
        assert "The log cannot be read: " in message
        assert message.endswith("named above. Then deploy again with overwrite=True.")


def test_warning_of_the_retired_sdk_is_suppressed_only_during_the_call(ws, model, monkeypatch):
    """Also if an abandoned call completes later."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", FutureWarning)
        abandoned = threading.Event()
        with monkeypatch.context() as patch:
            patch.setattr(Model, "deploy", lambda *_, **__: abandoned.wait(60))
            with pytest.raises(DeploymentTimeout):
                deploy(ws, model, timeout=1)
        filters = list(warnings.filters)
        abandoned.set()
        with pytest.raises(FutureWarning, match="SDK v2"):
            Model.deploy(ws, NAME, [model], configure(ECHO), build_aci_config())
        assert warnings.filters == filters


# --- what is rejected before anything is sent ---


@pytest.fixture
def no_request(mocked_workspace):
    with pytest.MonkeyPatch.context() as patch:
        for kind, call in ((Model, "deploy"), (Webservice, "list")):
            patch.setattr(kind, call, lambda *_, **__: pytest.fail("a request was sent"))
        yield


def test_invalid_deployment_is_rejected_before_a_request(mocked_workspace, no_request):
    """Script, version of scikit-learn, name and model."""
    ws, model = mocked_workspace, fetch_model(mocked_workspace)
    config = configure(ECHO)
    Path("mine.py").write_text(ECHO.replace("def run", "def runs"))
    with pytest.raises(DeploymentError, match="does not define run") as raised:
        deploy_to_aci(ws, model, config, build_aci_config())
    assert (raised.value.state, raised.value.logs) == (None, "")
    joblib.dump([1], "old.pkl")
    old = Model.register(ws, "old.pkl", "old", properties={"scikit-learn": "0.22.1"})
    config = configure(ECHO, build_scoring_environment())
    with pytest.raises(DeploymentError, match=r"was saved by scikit-learn 0\.22\.1, but the env"):
        deploy_to_aci(ws, old, config, build_aci_config())
    with pytest.raises(DeploymentError, match="is not a valid name of a service"):
        deploy(ws, model, name="svc-")
    for wrong in ("digits", ["digits"], [None]):
        with pytest.raises(TypeError, match=r"expected the Model that fetch_model\(ws\) returns"):
            deploy(ws, wrong)


def test_deployment_that_the_workspace_rejects_leaves_no_service(ws, model):
    with pytest.raises(DeploymentError) as raised:
        deploy(ws, model, aci={"memory_gb": 5000})
    message = str(raised.value)
    assert message.startswith(f"The service {NAME!r} could not be deployed: ")
    assert "memory_gb" in message
    assert "Headers" not in message
    assert names(ws) == []


@pytest.fixture
def deletion(mocked_workspace, monkeypatch):
    """A service whose deletion is accepted (202), and the outcome of that operation."""
    service = deploy(mocked_workspace, fetch_model(mocked_workspace))
    outcome: dict = {}
    replace_responses(
        monkeypatch,
        **{f"DELETE /services/{NAME}": (202, {}, "https://127.0.0.1/operations/deletion")},
        **{"GET /operations/deletion": (200, outcome, "")},
    )
    return service, outcome


@pytest.mark.parametrize(
    ("outcome", "message"),
    [
        (
            {"state": "Failed", "error": {"code": "Locked", "message": "The group is locked."}},
            r"not be deleted: The group is locked\. On Azure it",
        ),
        ({"state": "Succeeded"}, r"within 300 s\. On Azure it may"),  # but the service still exists
    ],
)
def test_failed_deletion_raises_although_the_sdk_discards_it(deletion, outcome, message):
    service, operation = deletion
    operation |= outcome
    with pytest.raises(DeploymentError, match=message):
        delete_service(service)


def test_delete_service_waits_until_the_name_is_free(deletion, monkeypatch):
    service, outcome = deletion
    outcome |= {"state": "Succeeded"}
    genuine, lookups = service_module._find, []

    def find(*args):
        lookups.append(genuine(*args))
        return lookups[-1] if len(lookups) < 3 else None

    monkeypatch.setattr(service_module, "_find", find)
    delete_service(service)
    assert len(lookups) == 3


def test_failed_deletion_of_an_existing_service_fails_the_deployment(deletion, monkeypatch):
    service, outcome = deletion
    outcome |= {"state": "Failed", "error": {"message": "The group is locked."}}
    service.state = "Failed"
    monkeypatch.setattr(service_module, "_find", lambda *_: service)
    with pytest.raises(DeploymentError, match=r"could not be deployed: The group is locked\."):
        deploy(service.workspace, fetch_model(service.workspace), overwrite=True)
    assert Model.deploy.call_count == 1


def test_deletion_that_does_not_complete_raises_after_the_timeout(slow_workspace, monkeypatch):
    service = deploy(slow_workspace, fetch_model(slow_workspace))
    never = threading.Event()
    with monkeypatch.context() as patch:
        patch.setattr(AciWebservice, "delete", lambda self: never.wait(60))
        patch.setattr(service_module, "DELETE_TIMEOUT", 0.2)
        with pytest.raises(
            DeploymentError, match=r"did not complete within 0\.2 s.*delete it in the"
        ):
            delete_service(service)
        never.set()
