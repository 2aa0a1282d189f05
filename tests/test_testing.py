"""The pytest kit: what `mocked_workspace` does, and that a user's repository can use it."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import azureml.core.webservice.webservice
import numpy as np
import pytest
import requests
from azureml.core import Environment, Model, Webservice, Workspace
from azureml.exceptions import WebserviceException

import mnist_deploy as md
from mnist_deploy.errors import (
    AuthenticationFailed,
    DeploymentError,
    EnvironmentNotFound,
    InputRejected,
    ModelError,
    PayloadTooLarge,
    ScoringError,
    ScoringTimeout,
    ScriptFailed,
    ServiceUnavailable,
)
from mnist_deploy.testing.backend import Backend
from mnist_deploy.testing.cloud import MockedCloud
from mnist_deploy.testing.workspace import open_workspace

pytest_plugins = ["mnist_deploy.testing", "pytester"]

EXAMPLES = Path(__file__).parent / "examples"
REPOSITORY = ("digit_report.py", "test_digit_report.py")
IMAGES = np.zeros((3, 784))


def deploy(ws, name="svc", **aci):
    inference_config = md.build_inference_config(md.fetch_environment(ws))
    config = md.build_aci_config(**aci)
    return md.deploy_to_aci(ws, md.fetch_model(ws), inference_config, config, name)


@pytest.fixture
def cloud(mocked_workspace):
    return mocked_workspace.cloud


class TestStart:
    def test_holds_the_model_and_the_environment(self, mocked_workspace):
        model, environment = (
            md.fetch_model(mocked_workspace),
            md.fetch_environment(mocked_workspace),
        )
        assert isinstance(mocked_workspace, Workspace)
        assert isinstance(model, Model)
        assert model.id == "sklearn_mnist:1"
        assert isinstance(environment, Environment)
        assert (environment.name, environment.version) == ("tutorial-env", "1")
        assert list(mocked_workspace.models) == ["sklearn_mnist"]
        assert list(mocked_workspace.environments) == ["tutorial-env"]
        assert mocked_workspace.webservices == {}

    def test_model_is_a_file_that_knows_digits(self, mocked_workspace, mnist_sample, tmp_path):
        import joblib

        path = md.download_model(md.fetch_model(mocked_workspace), tmp_path)
        assert path.name == "sklearn_mnist_model.pkl"
        assert joblib.load(path).score(mnist_sample.images, mnist_sample.labels) > 0.8

    def test_needs_no_preparation(self, mocked_workspace, tmp_path):
        assert md.prepare_workspace(mocked_workspace, tmp_path).id == "sklearn_mnist:1"
        assert md.fetch_environment(mocked_workspace).version == "1"
        assert not list(tmp_path.iterdir())


def test_opens_no_socket_and_starts_no_process(mocked_workspace, tmp_path, monkeypatch):
    tried = []

    def forbidden(*arguments, **_):
        tried.append(arguments)
        raise OSError("a socket or a process")

    monkeypatch.setattr(socket, "socket", forbidden)
    monkeypatch.setattr(socket, "getaddrinfo", forbidden)
    monkeypatch.setattr(subprocess, "Popen", forbidden)
    md.prepare_workspace(mocked_workspace, tmp_path)
    md.download_model(md.fetch_model(mocked_workspace), tmp_path)
    with md.closing_service(deploy(mocked_workspace, auth_enabled=True)) as service:
        primary, _ = service.get_keys()
        assert len(md.call_service(service, IMAGES)) == 3
        assert len(md.post_images(service.scoring_uri, IMAGES, api_key=primary)) == 3
        assert len(service.run(json.dumps({"data": IMAGES.tolist()}))) == 3
        headers = {"Authorization": f"Bearer {primary}"}
        body = json.dumps({"data": IMAGES.tolist()})
        assert requests.post(service.scoring_uri, body, headers=headers).ok
        assert service.get_logs()
        service.regen_key("Primary")
    assert not tried  # whoever may have caught the error


class TestWrongCalls:
    """What would fail on Azure fails here, and what is not simulated says so."""

    def test_an_unknown_method_of_the_workspace(self, mocked_workspace):
        with pytest.raises(AttributeError):
            mocked_workspace.get_defualt_datastore()

    def test_wrong_arguments(self, mocked_workspace):
        with pytest.raises(TypeError):
            Model.register(mocked_workspace, "model.pkl", nmae="mine")
        with pytest.raises(TypeError):
            mocked_workspace.get_details("too", "many")

    def test_what_is_not_simulated_names_the_fixture_that_may_know_it(self, mocked_workspace):
        with pytest.raises(NotImplementedError, match="local_workspace"):
            mocked_workspace.get_default_datastore()
        with pytest.raises(NotImplementedError, match="compute_targets"):
            mocked_workspace.compute_targets  # noqa: B018
        service = deploy(mocked_workspace)
        with pytest.raises(NotImplementedError, match="appInsightsEnabled"):
            service.update(enable_app_insights=True)

    def test_a_workspace_without_mock_is_none(self, mocked_workspace):
        with pytest.raises((AttributeError, TypeError)):
            md.deploy_to_aci(None, md.fetch_model(mocked_workspace), None, None)

    def test_a_model_that_is_no_model(self, mocked_workspace):
        inference_config = md.build_inference_config(md.fetch_environment(mocked_workspace))
        with pytest.raises(TypeError, match="expected a Model"):
            md.deploy_to_aci(
                mocked_workspace, "sklearn_mnist", inference_config, md.build_aci_config()
            )

    def test_what_is_not_registered(self, mocked_workspace):
        with pytest.raises(ModelError, match="sklearn_mnist:1"):
            md.fetch_model(mocked_workspace, "sklearn_minst")
        with pytest.raises(EnvironmentNotFound, match="tutorial-env:1"):
            md.fetch_environment(mocked_workspace, version="2")


def test_a_deployment_can_be_watched_instead_of_waited_for(mocked_workspace):
    inference_config = md.build_inference_config(md.fetch_environment(mocked_workspace))
    arguments = [md.fetch_model(mocked_workspace)], inference_config, md.build_aci_config()
    service = Model.deploy(mocked_workspace, "svc", *arguments)
    assert service.state == "Transitioning"
    service.update_deployment_state()
    assert service.state == "Healthy"


class TestAnswers:
    def test_of_the_registered_model(self, mocked_workspace, mnist_sample):
        labels = md.call_service(deploy(mocked_workspace), mnist_sample.images)
        assert (labels == mnist_sample.labels).mean() > 0.8

    def test_of_a_model(self, mocked_workspace, cloud):
        from sklearn.dummy import DummyClassifier

        cloud.answer_with(DummyClassifier(strategy="constant", constant=4).fit(IMAGES, [4, 4, 4]))
        assert list(md.call_service(deploy(mocked_workspace), IMAGES)) == [4, 4, 4]

    def test_of_a_function_that_gets_the_images(self, mocked_workspace, cloud, mnist_sample):
        cloud.answer_with(lambda images: (images.mean(axis=1) > 0.1).astype(int))
        bright = md.call_service(deploy(mocked_workspace), mnist_sample.images)
        assert list(bright) == list(mnist_sample.images.mean(axis=1) > 0.1)

    def test_of_a_list_in_its_order_over_several_requests(self, mocked_workspace, cloud):
        cloud.answer_with([7, 2, 1])
        service = deploy(mocked_workspace)
        assert list(md.call_service(service, IMAGES, batch_size=2)) == [7, 2, 1]
        with pytest.raises(AssertionError, match="3 labels"):
            md.call_service(service, IMAGES)

    @pytest.mark.parametrize("labels", [["red", "white", "red"], [0.5, 1.5, 2.5]])
    def test_may_be_of_any_type(self, mocked_workspace, cloud, labels):
        cloud.answer_with(labels)
        assert list(md.call_service(deploy(mocked_workspace), IMAGES)) == labels

    @pytest.mark.parametrize("scale", [1, 1 / 3, 100])
    def test_come_for_numbers_as_they_were_sent(self, mocked_workspace, cloud, scale):
        numbers = np.random.default_rng(0).random((3, 13)) * scale
        cloud.answer_with(lambda images: images.sum(axis=1))
        answered = md.call_service(deploy(mocked_workspace), numbers)
        np.testing.assert_allclose(answered, numbers.sum(axis=1))

    def test_differ_between_services(self, mocked_workspace, cloud):
        first, second = deploy(mocked_workspace, "first"), deploy(mocked_workspace, "second")
        cloud.answer_with(lambda images: [1] * len(images))
        cloud.refuse(503, service="second")
        assert list(md.call_service(first, IMAGES)) == [1, 1, 1]
        with pytest.raises(ServiceUnavailable):
            md.call_service(second, IMAGES)
        cloud.answer_with([5, 5, 5])  # the last word, for all
        assert list(md.call_service(second, IMAGES)) == [5, 5, 5]

    def test_are_the_model_s_again_after_recovery(self, mocked_workspace, cloud):
        service = deploy(mocked_workspace)
        expected = list(md.call_service(service, IMAGES))
        cloud.refuse(500)
        cloud.recover()
        assert list(md.call_service(service, IMAGES)) == expected


def test_keys_can_be_chosen(mocked_workspace):
    service = deploy(mocked_workspace, auth_enabled=True)
    primary, _ = service.get_keys()
    service.regen_key("Secondary", set_key="a key of my own")
    assert service.get_keys() == (primary, "a key of my own")
    assert len(md.post_images(service.scoring_uri, IMAGES, api_key="a key of my own")) == 3


class TestFailures:
    @pytest.mark.parametrize(
        ("status", "error"),
        [
            (400, InputRejected),
            (401, AuthenticationFailed),
            (403, AuthenticationFailed),
            (413, PayloadTooLarge),
            (500, ScriptFailed),
            (502, ServiceUnavailable),
            (503, ServiceUnavailable),
        ],
    )
    def test_refusals(self, mocked_workspace, cloud, status, error, monkeypatch):
        service = deploy(mocked_workspace)
        slept = []
        monkeypatch.setattr(time, "sleep", slept.append)
        cloud.refuse(status, "not today")
        with pytest.raises(error, match="not today") as caught:
            md.call_service(service, IMAGES)
        assert caught.value.status == status
        with pytest.raises(WebserviceException, match=str(status)):
            service.run(json.dumps({"data": [[0.0]]}))
        assert not any(slept)  # though the SDK asks some of them four times

    def test_time_out_takes_no_time(self, mocked_workspace, cloud):
        service = deploy(mocked_workspace)
        cloud.time_out()
        with pytest.raises(ScoringTimeout, match="3600"):
            md.call_service(service, IMAGES, timeout=3600)
        assert cloud.requests[-1].status is None

    def test_cut_off(self, mocked_workspace, cloud):
        service = deploy(mocked_workspace)
        cloud.cut_off()
        with pytest.raises(ServiceUnavailable):
            md.call_service(service, IMAGES, patience=0)

    def test_run_that_raises_is_in_the_logs(self, mocked_workspace, cloud):
        service = deploy(mocked_workspace)

        def broken(images):
            raise KeyError("no such column")

        cloud.answer_with(broken)
        with pytest.raises(ScriptFailed):
            md.call_service(service, IMAGES)
        assert "no such column" in service.get_logs()

    def test_a_check_inside_the_answer_reaches_the_test(self, mocked_workspace, cloud):
        service = deploy(mocked_workspace)

        def checking(images):
            assert images.max() > 0, "all black"
            return [0] * len(images)

        cloud.answer_with(checking)
        with pytest.raises(AssertionError, match="all black"):
            md.call_service(service, IMAGES)

    def test_wrong_number_of_labels(self, mocked_workspace, cloud):
        service = deploy(mocked_workspace)
        cloud.answer_with(lambda images: [1])
        with pytest.raises(ScoringError, match="1 labels for 3 images"):
            md.call_service(service, IMAGES)

    def test_init_that_fails(self, mocked_workspace, cloud):
        cloud.fail_init("ModuleNotFoundError: No module named 'xgboost'")
        with pytest.raises(DeploymentError, match="xgboost") as caught:
            deploy(mocked_workspace)
        assert caught.value.state == "Failed"
        assert "xgboost" in caught.value.logs
        with pytest.raises(ServiceUnavailable):
            md.call_service(Webservice(mocked_workspace, "svc"), IMAGES, patience=0)

    def test_deployment_that_never_finishes(self, mocked_workspace, cloud):
        cloud.never_finish()
        with pytest.raises(DeploymentError) as caught:
            deploy(mocked_workspace)  # with ten minutes of patience, which pass at once
        assert caught.value.state == "Transitioning"
        service = Webservice(mocked_workspace, "svc")
        assert service.state == "Transitioning"

    def test_waiting_for_it_without_a_limit_fails_instead_of_hanging(self, mocked_workspace, cloud):
        cloud.never_finish()
        inference_config = md.build_inference_config(md.fetch_environment(mocked_workspace))
        model = md.fetch_model(mocked_workspace)
        arguments = [model], inference_config, md.build_aci_config()
        service = Model.deploy(mocked_workspace, "svc", *arguments)
        with pytest.raises(WebserviceException, match="exceeded timeout"):
            service.wait_for_deployment(timeout_sec=3600)
        with pytest.raises(TimeoutError, match="for ever"):
            service.wait_for_deployment()

    def test_no_model_to_answer_from(self, mocked_workspace, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        (tmp_path / "weights.bin").write_bytes(b"\1\2")
        model = Model.register(mocked_workspace, "weights.bin", "weights")
        (tmp_path / "any.py").write_text("def init(): ...\ndef run(data): return []\n")
        inference_config = md.build_inference_config(
            md.fetch_environment(mocked_workspace), "any.py"
        )
        service = md.deploy_to_aci(mocked_workspace, model, inference_config, md.build_aci_config())
        with pytest.raises(AssertionError, match="answer_with"):
            md.call_service(service, IMAGES)


class TestRecord:
    def test_of_requests(self, mocked_workspace, cloud, mnist_sample):
        service = deploy(mocked_workspace)
        md.call_service(service, mnist_sample.images[:5], batch_size=3)
        cloud.refuse(413)
        with pytest.raises(PayloadTooLarge):
            md.post_images(service.scoring_uri, mnist_sample.images[:1])
        assert [(r.service, r.status) for r in cloud.requests] == [
            ("svc", 200),
            ("svc", 200),
            ("svc", 413),
        ]
        sent = np.concatenate([r.images for r in cloud.requests[:2]])
        np.testing.assert_array_equal(sent, mnist_sample.images[:5])

    def test_of_a_body_that_holds_no_images(self, mocked_workspace, cloud):
        service = deploy(mocked_workspace)
        assert requests.post(service.scoring_uri, b'{"dat": []}').status_code == 400
        assert cloud.requests[0].images is None
        assert cloud.requests[0].body == b'{"dat": []}'

    def test_of_the_sdk(self, mocked_workspace, cloud):
        with md.closing_service(deploy(mocked_workspace, auth_enabled=True)) as service:
            md.call_service(service, IMAGES)
        names = [name for name, *_ in cloud.calls]
        assert [n for n in names if n != "Webservice.get_logs"] == [
            "Environment.get",
            "Model.deploy",
            "Webservice.wait_for_deployment",
            "Webservice.get_keys",
            "Webservice.delete",
        ]
        Model.deploy.assert_called_once()
        assert Model.deploy.call_args.args[:2] == (mocked_workspace, "svc")
        Model.register.assert_not_called()

    def test_holds_no_key(self, mocked_workspace, cloud):
        service = deploy(mocked_workspace, auth_enabled=True)
        md.call_service(service, IMAGES)
        shown = f"{cloud.calls}{cloud.requests}{service}{service.get_logs()}"
        assert not [key for key in service.get_keys() if key in shown]


class TestIsolation:
    @pytest.mark.parametrize("turn", [1, 2])
    def test_nothing_is_left_for_the_next_test(self, mocked_workspace, cloud, turn):
        assert not cloud.calls
        assert not cloud.requests
        assert not mocked_workspace.webservices
        mocked_workspace.get_default_datastore.assert_not_called()
        with pytest.raises(NotImplementedError):
            mocked_workspace.get_default_datastore()
        mocked_workspace.get_default_datastore.side_effect = None
        mocked_workspace.name = "changed"
        md.fetch_model(mocked_workspace).add_tags({"turn": str(turn)})
        assert md.fetch_model(mocked_workspace).tags["turn"] == str(turn)
        md.fetch_model(mocked_workspace).delete()
        cloud.refuse(503)

    def test_the_sdk_is_whole_again_afterwards(self):
        def parts():
            webservice = azureml.core.webservice.webservice
            return Model.deploy, Environment.get, requests.Session.get_adapter, webservice.time

        genuine = parts()
        cloud = MockedCloud()
        with open_workspace(cloud, Backend(cloud)):
            assert not set(map(id, parts())) & set(map(id, genuine))
        assert parts() == genuine

    def test_a_local_workspace_beside_it_stays_itself(self, mocked_workspace, local_workspace):
        here = len(list(Model.list(local_workspace)))
        md.fetch_model(mocked_workspace).delete()
        assert mocked_workspace.models == {}
        assert len(list(Model.list(local_workspace))) == here
        assert md.fetch_environment(local_workspace).name == "tutorial-env"
        assert local_workspace.webservices == {}


class TestSample:
    def test_is_stratified_and_genuine(self, mnist_sample):
        assert mnist_sample.images.shape == (100, 784)
        assert mnist_sample.images.min() == 0
        assert mnist_sample.images.max() == 1
        assert list(np.bincount(mnist_sample.labels)) == [10] * 10

    def test_cannot_be_spoilt_for_other_tests(self, mnist_sample):
        with pytest.raises(ValueError, match="read-only"):
            mnist_sample.images[0, 0] = 1

    def test_lies_in_files_too(self, mnist_sample):
        images, labels = md.load_test_data(mnist_sample.data_dir)
        np.testing.assert_array_equal(images, mnist_sample.images)
        np.testing.assert_array_equal(labels, mnist_sample.labels)
        assert list(np.bincount(md.load_training_data(mnist_sample.data_dir)[1])) == [30] * 10

    def test_trains_a_model(self, mocked_workspace, mnist_sample, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        md.fetch_model(mocked_workspace).delete()
        model = md.prepare_workspace(mocked_workspace, mnist_sample.data_dir)
        assert model.id == "sklearn_mnist:2"
        assert float(model.properties["accuracy"]) > 0.7


class TestInAUsersRepository:
    @pytest.fixture
    def repository(self, pytester):
        for name in REPOSITORY:
            shutil.copy(EXAMPLES / name, pytester.path)
        return pytester

    def test_the_example_passes(self, repository):
        repository.runpytest_subprocess("-p", "no:cacheprovider").assert_outcomes(passed=5)

    def test_a_mistake_in_the_tested_code_fails(self, repository):
        code, tests = (repository.path / name for name in REPOSITORY)
        code.write_text(code.read_text().replace("with md.closing_service(service):", "if True:"))
        # The line may stand in the top-level conftest.py as well.
        line = 'pytest_plugins = ["mnist_deploy.testing"]'
        tests.write_text(tests.read_text().replace(line, ""))
        repository.makeconftest(line)
        result = repository.runpytest_subprocess("-p", "no:cacheprovider", "-k", "cleans_up")
        result.assert_outcomes(failed=2, deselected=3)

    def test_without_pytest_says_what_to_install(self):
        code = "import sys; sys.modules['pytest'] = None; import mnist_deploy.testing"
        run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert run.returncode == 1
        assert "pip install pytest" in run.stderr.splitlines()[-1]
