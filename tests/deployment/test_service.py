"""Deploy to a genuine local workspace: what works, what fails, and what the failure says."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
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
DYING = "import os\n" + ECHO.replace(
    'print("init was called")', 'print("out of luck", flush=True); os._exit(7)'
)
NAME = "sklearn-mnist-svc3"


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
    return register(ws, "digits", tmp_path_factory.mktemp("digits"), [0, 0, 1, 1])


def register(ws, name: str, folder: Path, labels: list[int]) -> Model:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        joblib.dump(LogisticRegression().fit(np.eye(4), labels), f"{name}.pkl")
        return Model.register(ws, f"{name}.pkl", name)


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
    service = deploy(ws, model)
    assert type(service) is AciWebservice
    assert (service.name, service.state) == (NAME, "Healthy")
    assert service.tags == {"data": "MNIST", "method": "sklearn"}
    assert score(service, "[1, 2]").json() == [1, 2]
    delete_service(service)
    assert names(ws) == []
    delete_service(service)  # nothing happens
    assert "Warning" not in capfd.readouterr().err


def test_the_tutorials_script_scores_the_model_that_was_registered(ws, sample_data, tmp_path):
    """The whole way, with score.py and its environment as they are."""
    X_train, y_train, X_test, _ = sample_data
    fitted = LogisticRegression(max_iter=20).fit(X_train[:300], y_train[:300])
    joblib.dump(fitted, "sklearn_mnist_model.pkl")
    registered = Model.register(ws, "sklearn_mnist_model.pkl", "mnist-for-deployment")
    config = build_inference_config(build_scoring_environment())
    service = deploy_to_aci(ws, registered, config, build_aci_config(), "whole-way")
    answer = score(service, json.dumps({"data": X_test[:50].tolist()}))
    assert answer.json() == fitted.predict(X_test[:50]).tolist()


def test_two_models_in_one_service(ws, model, tmp_path):
    second = register(ws, "others", tmp_path, [1, 1, 0, 0])
    source = """
        import json, os, pathlib, joblib

        def init():
            global models
            folder = pathlib.Path(os.environ["AZUREML_MODEL_DIR"])
            models = {file.stem: joblib.load(file) for file in folder.rglob("*.pkl")}

        def run(data):
            return {name: each.predict(json.loads(data)).tolist() for name, each in models.items()}
    """
    service = deploy(ws, [model, second], source)
    answer = score(service, json.dumps(np.eye(4).tolist())).json()
    assert answer == {"digits": [0, 0, 1, 1], "others": [1, 1, 0, 0]}


def test_with_keys(ws, model, capfd):
    service = deploy(ws, model, aci={"auth_enabled": True})
    primary, secondary = service.get_keys()
    assert score(service, "[1]").status_code == 401
    assert score(service, "[1]", "wrong").status_code == 401
    for key in (primary, secondary):
        assert score(service, "[1]", key).json() == [1]
    seen = repr(service) + str(capfd.readouterr()) + service.get_logs()
    assert primary not in seen
    assert secondary not in seen


def test_progress_is_shown_and_removed(ws, model, capsys):
    deploy(ws, model)
    shown = capsys.readouterr().err
    assert f"deploying {NAME} 00:0" in shown
    assert shown.endswith("\r")


def test_closing_service_deletes_it_also_after_an_error(ws, model):
    def use():
        with closing_service(deploy(ws, model)) as service:
            assert score(service, "[3]").json() == [3]
            raise LookupError("in the block")

    with pytest.raises(LookupError, match="in the block"):
        use()
    assert names(ws) == []


# A service that is left over


def test_a_left_over_is_not_touched_without_overwrite(ws, model):
    service = deploy(ws, model)
    with pytest.raises(DeploymentError) as raised:
        deploy(ws, model, ECHO.replace("json.loads(data)", "'new'"))
    assert "already (Healthy). Pass overwrite=True" in str(raised.value)
    assert raised.value.state == "Healthy"
    assert score(service, "[1]").json() == [1]


def test_a_healthy_left_over_is_updated_in_place(ws, model, capsys):
    old = deploy(ws, model, aci={"auth_enabled": True})
    keys = old.get_keys()
    new = deploy(
        ws, model, ECHO.replace("json.loads(data)", "'new'"), aci={"auth_enabled": True},
        overwrite=True,
    )  # fmt: skip
    assert f"Replacing the service {NAME!r} (Healthy)" in capsys.readouterr().out
    assert names(ws) == [NAME]
    assert new.get_keys() == keys
    assert score(new, "[1]", keys[0]).json() == "new"


@pytest.mark.parametrize(("source", "timeout"), [(FAILING, 60), (HANGING, 3)])
def test_a_left_over_that_failed_or_hangs_is_replaced(ws, model, source, timeout, capsys):
    with pytest.raises(DeploymentError):
        deploy(ws, model, source, timeout=timeout)
    assert score(deploy(ws, model, overwrite=True, timeout=60), "[5]").json() == [5]
    assert f"Replacing the service {NAME!r} (" in capsys.readouterr().out


def test_a_left_over_that_an_interrupted_run_sent_is_replaced(ws, model):
    """Killed while it deployed: the next run finds the service in whatever state it is."""
    Model.deploy(ws, NAME, [model], configure(HANGING), build_aci_config())
    assert score(deploy(ws, model, overwrite=True, timeout=60), "[5]").json() == [5]


def test_overwrite_without_a_left_over_is_no_error(ws, model, capsys):
    assert deploy(ws, model, overwrite=True).state == "Healthy"
    assert "Replacing" not in capsys.readouterr().out


# What fails


def test_a_failing_init_is_told_with_the_containers_log(ws, model, capfd):
    began = time.monotonic()
    with pytest.raises(DeploymentError) as raised:
        deploy(ws, model, FAILING, timeout=60)
    error, message = raised.value, str(raised.value)
    assert time.monotonic() - began < 30
    assert not isinstance(error, DeploymentTimeout)
    assert error.state == "Failed"
    assert "OSError: the model is not readable" in error.logs
    assert len(error.logs.splitlines()) <= 30
    assert message.startswith(f"The service {NAME!r} could not be deployed; its state is Failed. ")
    assert error.logs in message
    assert "The first error: OSError: the model is not readable\nMend that, then" in message
    assert "overwrite=True" in message
    assert capfd.readouterr().err.count("Error") == 0  # nothing but the exception tells it


def test_an_init_that_hangs_is_given_up_in_time(ws, model):
    began = time.monotonic()
    with pytest.raises(DeploymentTimeout) as raised:
        deploy(ws, model, HANGING, timeout=8)
    assert 8 <= time.monotonic() - began < 8 + service_room._LOG_LIMIT + 3
    assert raised.value.state == "Transitioning"
    assert "waiting for a file" in raised.value.logs
    message = str(raised.value)
    assert f"The service {NAME!r} was not healthy within 8 s; its state is Transition" in message
    assert "No error is told there" in message
    assert "Pass a longer timeout" in message
    assert names(ws) == [NAME]


def test_a_script_that_takes_its_process_along(ws, model):
    with pytest.raises(DeploymentError) as raised:
        deploy(ws, model, DYING, timeout=60)
    assert raised.value.state == "Failed"
    assert "out of luck" in raised.value.logs


def test_an_import_that_is_missing_is_named(ws, model):
    told = "The first error: ModuleNotFoundError: No module named 'not_there'\nThe environment must"
    with pytest.raises(DeploymentError, match=told):
        deploy(ws, model, "import not_there\n" + ECHO, timeout=60)


def test_a_workspace_that_hangs_is_given_up_in_time(ws, model, monkeypatch):
    """Before anything was sent, while it is sent, and while the log is asked for."""
    never = threading.Event()
    monkeypatch.setattr(service_room, "_LOG_LIMIT", 0.3)
    with monkeypatch.context() as patch:
        patch.setattr(Webservice, "list", lambda *_, **__: never.wait(60))
        with pytest.raises(DeploymentTimeout, match=r"not healthy within 0\.5 s: There was no ans"):
            deploy(ws, model, timeout=0.5)
    with monkeypatch.context() as patch:
        patch.setattr(Model, "deploy", lambda *_, **__: never.wait(60))
        with pytest.raises(DeploymentTimeout) as raised:
            deploy(ws, model, timeout=3)
    assert raised.value.state is None
    with monkeypatch.context() as patch:
        patch.setattr(AciWebservice, "get_logs", lambda *_, **__: never.wait(60))
        patch.setattr(AciWebservice, "update_deployment_state", lambda *_: never.wait(60))
        with pytest.raises(DeploymentTimeout, match="The log cannot be read: There was no answer"):
            deploy(ws, model, HANGING, timeout=3)
    never.set()


def test_a_service_that_fails_after_it_was_healthy(ws, model, monkeypatch):
    monkeypatch.setattr(AciWebservice, "wait_for_deployment", lambda *_, **__: None)
    with pytest.raises(DeploymentError, match="could not be deployed; its state is"):
        deploy(ws, model, HANGING)


def test_ctrl_c_ends_the_waiting_and_says_what_is_left(ws, workspace_home, model):
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
        wait_until(lambda: "stopped" in names(ws) or process.poll() is not None)
        wait_until(lambda: "waiting for a file" in Webservice(ws, "stopped").get_logs())
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


def wait_until(condition, seconds: float = 60) -> None:
    give_up_at = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < give_up_at, "it did not come about in time"
        time.sleep(0.1)


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


def test_nothing_is_left_in_the_temporary_folder(mocked_workspace, monkeypatch, tmp_path):
    """Where the SDK leaves an archive and a script for each deployment."""
    ws, model = mocked_workspace, fetch_model(mocked_workspace)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    for folder in ("temporary", "source"):
        (tmp_path / folder).mkdir()
    (tmp_path / "source" / "mine.py").write_text(ECHO)
    environment = Environment("mine")
    environment.python.user_managed_dependencies = True
    whole = build_inference_config(environment, "mine.py", "source")
    deploy_to_aci(ws, model, whole, build_aci_config())
    deploy(ws, model, overwrite=True)
    assert os.listdir(tmp_path / "temporary") == []


def test_only_our_own_call_leaves_out_that_the_sdk_is_retired(ws, model, monkeypatch):
    """And no filter is changed when a call that was given up ends at last."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", FutureWarning)
        deploy(ws, model)
        with pytest.raises(FutureWarning, match="SDK v2"):
            Model.deploy(ws, NAME, [model], configure(ECHO), build_aci_config(), overwrite=True)
        filters, given_up = list(warnings.filters), threading.Event()
        monkeypatch.setattr(Model, "deploy", lambda *_, **__: given_up.wait(60))
        with pytest.raises(DeploymentTimeout):
            deploy(ws, model, timeout=1, name="another")
        given_up.set()
        assert warnings.filters == filters


# What is refused before anything is sent


@pytest.fixture
def nothing_is_sent():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Model, "deploy", lambda *_, **__: pytest.fail("it was sent"))
        patch.setattr(Webservice, "list", lambda *_, **__: pytest.fail("it was sent"))
        yield


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (ECHO.replace("def run(data)", "def run(data"), "cannot be compiled"),
        (ECHO.replace("def run", "def runs"), "does not define run"),
    ],
)
def test_scripts_that_cannot_work_are_not_sent(ws, model, nothing_is_sent, source, said):
    config = configure(ECHO)
    Path("mine.py").write_text(source)
    with pytest.raises(DeploymentError, match=said) as raised:
        deploy_to_aci(ws, model, config, build_aci_config())
    assert (raised.value.state, raised.value.logs) == (None, "")


def test_a_model_of_another_scikit_learn_is_not_sent(ws, nothing_is_sent, tmp_path):
    joblib.dump([1], "old.pkl")
    old = Model.register(ws, "old.pkl", "old", properties={"scikit-learn": "0.22.1"})
    config = configure(ECHO, build_scoring_environment())
    with pytest.raises(DeploymentError, match=r"was saved by scikit-learn 0\.22\.1, but the env"):
        deploy_to_aci(ws, old, config, build_aci_config())


@pytest.mark.parametrize("name", ["Svc", "a", "svc-"])
def test_a_name_that_azure_does_not_take_is_not_sent(ws, model, nothing_is_sent, name):
    with pytest.raises(DeploymentError, match="is no name for a service"):
        deploy(ws, model, name=name)


@pytest.mark.parametrize("wrong", ["digits", ["digits"], [None]])
def test_what_is_no_model_is_told(ws, nothing_is_sent, wrong):
    with pytest.raises(TypeError, match=r"expected a Model, as fetch_model\(ws\) returns it"):
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


def test_a_deletion_that_fails_is_told_though_the_sdk_keeps_it_to_itself(deletion):
    service, outcome = deletion
    outcome |= {"state": "Failed", "error": {"code": "Locked", "message": "The group is locked."}}
    with pytest.raises(DeploymentError, match=r"not be deleted: The group is locked\. On Azure it"):
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


def test_a_service_that_stays_is_told(deletion):
    service, outcome = deletion
    outcome |= {"state": "Succeeded"}
    with pytest.raises(DeploymentError, match=r"within 300 s\. On Azure it may"):
        delete_service(service)


def test_a_left_over_that_cannot_be_deleted_is_no_success(deletion, monkeypatch):
    service, outcome = deletion
    outcome |= {"state": "Failed", "error": {"message": "The group is locked."}}
    service.state = "Failed"
    monkeypatch.setattr(service_room, "_find", lambda *_: service)
    with pytest.raises(DeploymentError, match=r"could not be deployed: The group is locked\."):
        deploy(service.workspace, fetch_model(service.workspace), overwrite=True)
    assert Model.deploy.call_count == 1


def test_a_service_that_cannot_be_deleted_is_told(mocked_workspace, monkeypatch):
    service = deploy(mocked_workspace, fetch_model(mocked_workspace))
    never = threading.Event()
    with monkeypatch.context() as patch:
        patch.setattr(AciWebservice, "delete", lambda self: never.wait(60))
        patch.setattr(service_room, "_DELETE_LIMIT", 0.2)
        with pytest.raises(DeploymentError, match=r"no answer within 0\.2 s.*delete it in the"):
            delete_service(service)
        never.set()
