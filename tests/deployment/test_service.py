"""Deploy to a genuine local workspace: what works, what fails, and what the failure says."""

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
from sklearn.linear_model import LogisticRegression
from weights_service import until

from mnist_deploy import (
    build_aci_config,
    build_inference_config,
    closing_service,
    delete_service,
    deploy_to_aci,
    fetch_model,
)
from mnist_deploy.deployment import service as service_room
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
    """The mocked workspace, but what does not answer is waited for as with a genuine one."""
    with pytest.MonkeyPatch.context() as patch:  # undone before the mock is
        patch.setattr(Deadline, "call", CALL)
        yield mocked_workspace


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture(autouse=True)
def _no_service_is_left(ws):
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


# What works


def test_deploys_and_deletes(ws, model, capfd):
    with warnings.catch_warnings():
        warnings.simplefilter("error", FutureWarning)  # that the SDK is retired, among others
        service = deploy(ws, model, aci={"auth_enabled": True})
    assert type(service) is AciWebservice
    assert (service.name, service.state) == (NAME, "Healthy")
    assert service.tags == {"data": "MNIST", "method": "sklearn"}
    keys = service.get_keys()
    assert score(service, "[1, 2]", keys[0]).json() == [1, 2]
    delete_service(service)
    assert names(ws) == []
    delete_service(service)  # nothing happens
    shown = capfd.readouterr()
    assert f"deploying {NAME} 00:0" in shown.err
    assert shown.err.endswith("\r")
    assert not any(key in shown.out + shown.err for key in keys)


def test_closing_service_deletes_it_also_after_an_error(mocked_workspace):
    def use():
        with closing_service(deploy(mocked_workspace, fetch_model(mocked_workspace))):
            raise LookupError("in the block")

    with pytest.raises(LookupError, match="in the block"):
        use()
    assert names(mocked_workspace) == []


# A service that is left over


def test_a_left_over_is_replaced_only_if_that_is_asked_for(mocked_workspace, capsys):
    """In place: its keys stay."""
    ws, model, aci = mocked_workspace, fetch_model(mocked_workspace), {"auth_enabled": True}
    old = deploy(ws, model, aci=aci, overwrite=True)
    told = r"already \(Healthy\)\. Pass overwrite=True"
    with pytest.raises(DeploymentError, match=told) as raised:
        deploy(ws, model)
    assert (raised.value.state, Model.deploy.call_count) == ("Healthy", 1)
    assert "Replacing" not in capsys.readouterr().out
    new = deploy(ws, model, aci=aci, overwrite=True)
    assert f"Replacing the service {NAME!r} (Healthy)" in capsys.readouterr().out
    assert (names(ws), new.get_keys()) == ([NAME], old.get_keys())


# What fails


def test_a_failing_init_is_told_with_the_log_and_can_be_replaced(ws, model, capfd):
    with pytest.raises(DeploymentError) as raised:
        deploy(ws, model, FAILING, timeout=60)
    error, message = raised.value, str(raised.value)
    assert not isinstance(error, DeploymentTimeout)
    assert error.state == "Failed"
    assert "OSError: the model is not readable" in error.logs
    assert len(error.logs.splitlines()) <= 30
    assert message.startswith(f"The service {NAME!r} could not be deployed; its state is Failed. ")
    assert error.logs in message
    assert "The first error: OSError: the model is not readable\nMend that, then" in message
    assert "overwrite=True" in message
    assert capfd.readouterr().err.count("Error") == 0  # nothing but the exception tells it
    assert score(deploy(ws, model, overwrite=True, timeout=60), "[5]").json() == [5]
    assert f"Replacing the service {NAME!r} (Failed)" in capfd.readouterr().out


@pytest.mark.processes
def test_an_init_that_hangs_is_given_up_in_time_and_can_be_replaced(ws, model):
    began = time.monotonic()
    with pytest.raises(DeploymentTimeout) as raised:
        deploy(ws, model, HANGING, timeout=8)
    assert 8 <= time.monotonic() - began < 8 + service_room._LOG_LIMIT + 3
    assert raised.value.state == "Transitioning"
    assert "waiting for a file" in raised.value.logs
    message = str(raised.value)
    assert f"The service {NAME!r} was not healthy within 8 s; its state is Transition" in message
    assert names(ws) == [NAME]
    assert score(deploy(ws, model, overwrite=True, timeout=60), "[5]").json() == [5]


@pytest.mark.parametrize(
    ("kind", "logs", "said"),
    [
        (
            DeploymentError,
            "no Error\nx.y.OSError: gone\nKeyError: 1",
            "error: x.y.OSError: gone\nM",
        ),
        (
            DeploymentError,
            "ModuleNotFoundError: No module named 'a'",
            "The environment must install",
        ),
        (DeploymentError, "SystemExit", "The first error: SystemExit"),
        (DeploymentError, "", "Mend what is named above, then go."),
        (DeploymentTimeout, "ValueError: x", "The first error: ValueError: x"),
        (DeploymentTimeout, "it starts", "No error is told there: init() may only need more time."),
    ],
)
def test_advice_follows_the_first_error_of_the_log(kind, logs, said):
    assert said in service_room._advice(kind, logs, "go")


def test_a_workspace_that_hangs_is_given_up_in_time(slow_workspace, monkeypatch):
    """Before anything was sent, while it is sent, and while the log is asked for."""
    ws, model, never = slow_workspace, fetch_model(slow_workspace), threading.Event()
    monkeypatch.setattr(service_room, "_LOG_LIMIT", 0.3)
    with monkeypatch.context() as patch:
        patch.setattr(Webservice, "list", lambda *_, **__: never.wait(60))
        with pytest.raises(DeploymentTimeout, match=r"not healthy within 0\.5 s: There was no ans"):
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
        with pytest.raises(DeploymentTimeout, match="The log cannot be read: There was no answer"):
            deploy(ws, model, timeout=3)
    never.set()


def test_a_service_that_fails_after_it_was_healthy(mocked_workspace, monkeypatch):
    mocked_workspace.cloud.never_finish()
    with monkeypatch.context() as patch:
        patch.setattr(Webservice, "wait_for_deployment", lambda *_, **__: None)
        with pytest.raises(DeploymentError, match=r"it became Transitioning after it"):
            deploy(mocked_workspace, fetch_model(mocked_workspace))


@pytest.mark.processes
def test_ctrl_c_ends_the_waiting_and_says_what_is_left(ws, workspace_home, model, interruptible):
    """In a process of its own, interrupted while its service starts."""
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
        until(lambda: "stopped" in names(ws) or process.poll() is not None, 60)
        until(lambda: "waiting for a file" in Webservice(ws, "stopped").get_logs(), 60)
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert time.monotonic() - began < 30
    assert "KeyboardInterrupt" in err
    assert "Interrupted. The service 'stopped' may be left: overwrite=True replaces it." in out
    assert names(ws) == ["stopped"]
    assert deploy(ws, model, name="stopped", overwrite=True, timeout=60).state == "Healthy"


def answer_instead(monkeypatch, **answers: tuple[int, dict | str, str]) -> None:
    """Answer requests with this in "METHOD path" here: by a status, a body, a location."""
    genuine = requests.Session.request

    def request(session, method, url, *args, **kwargs):
        path = urlsplit(url).path
        for (asked, part), (status, body, location) in wanted.items():
            if method.upper() == asked and part in path:
                made = requests.Response()
                made.status_code = status
                made._content = (body if isinstance(body, str) else json.dumps(body)).encode()
                made.headers["Operation-Location"] = location
                return made
        return genuine(session, method, url, *args, **kwargs)

    wanted = {tuple(name.split(" ")): answer for name, answer in answers.items()}
    monkeypatch.setattr(requests.Session, "request", request)


NO_IMAGE = {
    "state": "Failed",
    "error": {"code": "ImageBuildFailed", "message": "Failed building the environment:\npip."},
    "operationDetails": {"subOperationType": "BuildEnvironment"},
    "operationLog": "http://builds.invalid/log?sig=S3CRET",
}


@pytest.mark.parametrize("status", [200, 403])
def test_an_image_that_cannot_be_built_keeps_its_reason(mocked_workspace, monkeypatch, status):
    """As Azure tells it: the container has no log yet, and the build's lies elsewhere."""
    ws, model = mocked_workspace, fetch_model(mocked_workspace)
    log = "Collecting sklearn\nBuildError: no such package"
    failed = {"GET /operations/": (200, NO_IMAGE, ""), "GET /log": (status, log, "")}
    answer_instead(monkeypatch, **failed)
    with pytest.raises(DeploymentError) as raised:
        deploy(ws, model)
    message = str(raised.value)
    assert "its state is" in message
    assert "Failed building the environment: pip." in message
    assert "longer timeout" not in message
    assert "S3CRET" not in message
    if status == 200:
        assert raised.value.logs == log
        assert "The first error: BuildError: no such package\nMend that, then deploy" in message
    else:
        assert raised.value.logs == ""
        assert "(The log cannot be read: " in message
        assert message.endswith("Mend what is named above, then deploy again with overwrite=True.")


def test_only_our_own_call_leaves_out_that_the_sdk_is_retired(ws, model, monkeypatch):
    """And no filter is changed when a call that was given up ends at last."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", FutureWarning)
        given_up = threading.Event()
        with monkeypatch.context() as patch:
            patch.setattr(Model, "deploy", lambda *_, **__: given_up.wait(60))
            with pytest.raises(DeploymentTimeout):
                deploy(ws, model, timeout=1)
        filters = list(warnings.filters)
        given_up.set()
        with pytest.raises(FutureWarning, match="SDK v2"):
            Model.deploy(ws, NAME, [model], configure(ECHO), build_aci_config())
        assert warnings.filters == filters


# What is refused before anything is sent


@pytest.fixture
def nothing_is_sent(mocked_workspace):
    with pytest.MonkeyPatch.context() as patch:
        for kind, call in ((Model, "deploy"), (Webservice, "list")):
            patch.setattr(kind, call, lambda *_, **__: pytest.fail("it was sent"))
        yield


def test_what_cannot_work_is_not_sent(mocked_workspace, nothing_is_sent):
    """A script that was broken meanwhile, a model of another scikit-learn, no name, no model."""
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
    with pytest.raises(DeploymentError, match="is no name for a service"):
        deploy(ws, model, name="svc-")
    for wrong in ("digits", ["digits"], [None]):
        with pytest.raises(TypeError, match=r"expected the Model that fetch_model\(ws\) returns"):
            deploy(ws, wrong)


def test_a_workspace_that_refuses_says_why_and_nothing_is_left(ws, model):
    with pytest.raises(DeploymentError) as raised:
        deploy(ws, model, aci={"memory_gb": 5000})
    message = str(raised.value)
    assert message.startswith(f"The service {NAME!r} could not be deployed: ")
    assert "memory_gb" in message
    assert "Headers" not in message
    assert names(ws) == []


@pytest.fixture
def deletion(mocked_workspace, monkeypatch):
    """A service whose deletion Azure says to have begun, and what it says became of it."""
    service = deploy(mocked_workspace, fetch_model(mocked_workspace))
    outcome: dict = {}
    answer_instead(
        monkeypatch,
        **{f"DELETE /services/{NAME}": (202, {}, "https://127.0.0.1/operations/deletion")},
        **{"GET /operations/deletion": (200, outcome, "")},
    )
    return service, outcome


@pytest.mark.parametrize(
    ("end", "said"),
    [
        (
            {"state": "Failed", "error": {"code": "Locked", "message": "The group is locked."}},
            r"not be deleted: The group is locked\. On Azure it",
        ),
        ({"state": "Succeeded"}, r"within 300 s\. On Azure it may"),  # and yet it stays
    ],
)
def test_a_deletion_that_fails_is_told_though_the_sdk_keeps_it_to_itself(deletion, end, said):
    service, outcome = deletion
    outcome |= end
    with pytest.raises(DeploymentError, match=said):
        delete_service(service)


def test_a_deletion_is_waited_for_until_the_name_is_gone(deletion, monkeypatch):
    service, outcome = deletion
    outcome |= {"state": "Succeeded"}
    genuine, looks = service_room._find, []

    def find(*args):
        looks.append(genuine(*args))
        return looks[-1] if len(looks) < 3 else None

    monkeypatch.setattr(service_room, "_find", find)
    delete_service(service)
    assert len(looks) == 3


def test_a_left_over_that_cannot_be_deleted_is_no_success(deletion, monkeypatch):
    service, outcome = deletion
    outcome |= {"state": "Failed", "error": {"message": "The group is locked."}}
    service.state = "Failed"
    monkeypatch.setattr(service_room, "_find", lambda *_: service)
    with pytest.raises(DeploymentError, match=r"could not be deployed: The group is locked\."):
        deploy(service.workspace, fetch_model(service.workspace), overwrite=True)
    assert Model.deploy.call_count == 1


def test_a_service_that_cannot_be_deleted_is_told(slow_workspace, monkeypatch):
    service = deploy(slow_workspace, fetch_model(slow_workspace))
    never = threading.Event()
    with monkeypatch.context() as patch:
        patch.setattr(AciWebservice, "delete", lambda self: never.wait(60))
        patch.setattr(service_room, "_DELETE_LIMIT", 0.2)
        with pytest.raises(
            DeploymentError, match=r"did not complete within 0\.2 s.*delete it in the"
        ):
            delete_service(service)
        never.set()
