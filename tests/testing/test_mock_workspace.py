"""`mock_workspace`: one object as block, decorator and fixture, and what it checks at the end."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import json
import socket
import subprocess
import time
import unittest

import azureml.core.webservice.webservice
import numpy as np
import pytest
import requests
from azureml.core import Environment, Model, Workspace

import mnist_deploy as md
from mnist_deploy.errors import ScriptFailed
from mnist_deploy.testing import mock_workspace

IMAGES = np.zeros((3, 784))


def broken(images):
    raise KeyError("no such column")


class TestThreeWays:
    def test_context_manager_gives_a_workspace(self, deploy):
        with mock_workspace() as ws:
            assert len(md.call_service(deploy(ws), IMAGES)) == 3

    @mock_workspace()
    def test_decorated_test_receives_workspace_and_fixtures(self, deploy, ws, tmp_path):
        assert list(ws.models) == ["sklearn_mnist"]
        assert tmp_path.is_dir()
        deploy(ws)

    @mock_workspace
    def test_decorated_test_without_argument_connects_to_the_mock(self):
        assert list(md.connect_workspace().models) == ["sklearn_mnist"]

    def test_decorated_function_keeps_its_name_and_loses_its_parameter(self):
        @mock_workspace()
        def count(ws, kind, *, more=0):
            """Count them."""
            return len(getattr(ws, kind)) + more

        assert (count.__name__, count.__doc__) == ("count", "Count them.")
        assert [*inspect.signature(count).parameters] == ["kind", "more"]
        assert count("models") == count("environments", more=0) == 1

    def test_generator_is_decorated(self):
        @mock_workspace()
        def opened(ws):
            yield ws.name

        assert list(opened()) == ["mocked"]

    def test_asynchronous_generator_is_decorated(self):
        @mock_workspace()
        async def opened(ws):
            yield md.connect_workspace()

        async def names():
            return [ws.name async for ws in opened()]

        assert asyncio.run(names()) == ["mocked"]

    def test_unittest_class_is_decorated(self, begin):
        @mock_workspace(assert_all_deleted=True)
        class Case(unittest.TestCase):
            def test_starts_without_changes(self, ws):
                assert list(ws.models) == ["sklearn_mnist"]
                md.fetch_model(ws).delete()

            test_again = test_starts_without_changes

            def test_leaves_a_service(self, ws):
                begin(ws)

            def helper(self):
                raise AssertionError("not a test")

        result = unittest.TestResult()
        unittest.defaultTestLoader.loadTestsFromTestCase(Case).run(result)
        assert (result.testsRun, result.errors) == (3, [])
        ((test, text),) = result.failures
        assert test.id().endswith("test_leaves_a_service")
        assert "Not deleted: svc" in text

    @mock_workspace()
    class TestOfAClass:
        @pytest.mark.parametrize("turn", [1, 2])
        def test_each_method_has_a_workspace_of_its_own(self, ws, turn):
            md.fetch_model(ws).delete()

    def test_second_mock_is_rejected(self, mocked_workspace):
        with pytest.raises(RuntimeError, match="mocked already"), mock_workspace():
            pass
        assert mocked_workspace.models

    @mock_workspace()
    def test_fixture_in_a_decorated_test_is_rejected(self, request):
        with pytest.raises(RuntimeError, match="mocked already"):
            request.getfixturevalue("mocked_workspace")


@pytest.mark.parametrize("config", ["config.json", ".azureml/config.json"])
def test_config_file_is_not_read(mocked_workspace, tmp_path, monkeypatch, config):
    (tmp_path / config).parent.mkdir(exist_ok=True)
    (tmp_path / config).write_text("this is no JSON")
    monkeypatch.chdir(tmp_path)
    for connect in (
        md.connect_workspace,
        lambda: md.connect_workspace(config),
        lambda: md.connect_workspace(local=False),
        lambda: md.connect_workspace(local=True),
        Workspace.from_config,
        lambda: Workspace.get("mine", subscription_id="s", resource_group="g"),
    ):
        assert connect() is mocked_workspace


def test_mock_opens_no_socket_and_starts_no_process(
    mocked_workspace, deploy, tmp_path, monkeypatch
):
    tried = []

    def forbidden(*arguments, **_):
        tried.append(arguments)
        raise OSError("a socket or a process")

    for owner, name in ((socket, "socket"), (socket, "getaddrinfo"), (subprocess, "Popen")):
        monkeypatch.setattr(owner, name, forbidden)
    assert md.prepare_workspace(mocked_workspace, tmp_path).id == "sklearn_mnist:1"
    assert not list(tmp_path.iterdir())  # there was nothing to prepare
    md.download_model(md.fetch_model(mocked_workspace), tmp_path)
    with md.closing_service(deploy(mocked_workspace, auth_enabled=True)) as service:
        primary, _ = service.get_keys()
        assert len(md.call_service(service, IMAGES)) == 3
        body = json.dumps({"data": IMAGES.tolist()})
        assert len(service.run(body)) == 3
        headers = {"Authorization": f"Bearer {primary}"}
        assert requests.post(service.scoring_uri, body, headers=headers).ok
        assert service.get_logs()
        service.regen_key("Primary")
    assert not tried  # even if the error was caught


class TestChecks:
    """The checks of `mock_workspace` at its end."""

    @pytest.mark.parametrize(
        ("set_behavior", "message"),
        [
            (lambda cloud: cloud.respond_with(lambda images: []), "respond_with.*never used"),
            (lambda cloud: cloud.respond_with([7, 2]), r"respond_with\(\[7, 2\]\): never"),
            (lambda cloud: cloud.reject(503, service="other"), r"reject\(503\) of other: never"),
            (lambda cloud: cloud.delay(3), r"delay\(3\): never"),
            (lambda cloud: cloud.fail_init("E"), r"fail_init\('E'\): never"),
            (lambda cloud: (cloud.time_out(), cloud.recover()), r"time_out\(\): never"),
            (lambda cloud: cloud.expect_error(KeyError), r"expect_error\(KeyError\): none was"),
        ],
    )
    def test_unused_setting_fails_the_test(self, set_behavior, message):
        with pytest.raises(AssertionError, match=message):
            mock_workspace()(lambda ws: set_behavior(ws.cloud))()
        with mock_workspace(assert_all_used=False) as ws:
            set_behavior(ws.cloud)

    @pytest.mark.parametrize("method", ["respond_with", "respond_in_turn"])
    def test_setting_used_in_part_fails_the_test(self, deploy, method):
        @mock_workspace()
        def use_three_of_four(ws):
            if method == "respond_with":
                ws.cloud.respond_with([7, 2, 1, 0])
            else:
                ws.cloud.respond_in_turn([7], [2], [1], [0])
            md.call_service(deploy(ws), IMAGES, batch_size=1)

        with pytest.raises(AssertionError, match="1 of 4 not"):
            use_three_of_four()

    def test_remaining_service_fails_the_test(self, deploy):
        @mock_workspace(assert_all_deleted=True)
        def leave_two(ws):
            deploy(ws, "left")
            md.delete_service(deploy(ws, "gone"))
            deploy(ws, "too")

        with pytest.raises(AssertionError, match="Not deleted: left, too"):
            leave_two()

    @pytest.mark.parametrize("swallowed", [True, False])
    def test_error_of_a_function_is_raised_at_the_end(self, deploy, swallowed):
        @mock_workspace()
        def call_it(ws):
            ws.cloud.respond_with(broken)
            try:
                md.call_service(deploy(ws), IMAGES)
            except ScriptFailed:
                if not swallowed:
                    raise

        with pytest.raises(KeyError, match="no such column") as caught:
            call_it()
        assert swallowed or isinstance(caught.value.__context__, ScriptFailed)
        assert caught.traceback[-1].name == "broken"

    def test_swallowed_assertion_of_a_function_is_raised_at_the_end(self, deploy):
        def check(images):
            assert images.any()

        @mock_workspace()
        def swallow_it(ws):
            ws.cloud.respond_with(check)
            with contextlib.suppress(AssertionError):
                md.call_service(deploy(ws), IMAGES)

        with pytest.raises(AssertionError) as caught:
            swallow_it()
        assert caught.traceback[-1].name == "check"

    def test_expected_error_is_not_raised(self, deploy):
        with mock_workspace() as ws:
            ws.cloud.respond_with(broken)
            ws.cloud.expect_error(KeyError)
            with pytest.raises(ScriptFailed):
                md.call_service(deploy(ws), IMAGES)
            assert isinstance(ws.cloud.errors[0], KeyError)

    def test_error_is_not_raised_after_a_failure_that_it_caused(self, deploy):
        def check(images):
            assert images.any()

        @mock_workspace()
        def wrap_it(ws):
            ws.cloud.respond_with(check)
            try:
                md.call_service(deploy(ws), IMAGES)
            except AssertionError as error:
                raise ZeroDivisionError from error

        with pytest.raises(ZeroDivisionError):
            wrap_it()


class TestIsolation:
    @pytest.mark.parametrize("turn", [1, 2])
    def test_next_test_starts_with_the_initial_workspace(self, mocked_workspace, cloud, turn):
        assert not cloud.calls
        assert not cloud.requests
        assert not mocked_workspace.webservices
        md.fetch_model(mocked_workspace).add_tags({"turn": str(turn)})
        assert md.fetch_model(mocked_workspace).tags["turn"] == str(turn)
        md.fetch_model(mocked_workspace).delete()

    @pytest.mark.parametrize("failure", [None, ZeroDivisionError])
    def test_patches_are_removed_at_the_end(self, deploy, failure):
        def parts():
            return (
                *(Model.deploy, Environment.get, Workspace.get, Workspace.from_config),
                *(requests.Session.get_adapter, azureml.core.webservice.webservice.time),
                *(socket.getaddrinfo, socket.socket.connect, time.sleep),
            )

        @mock_workspace(assert_all_deleted=True)
        def fail(ws):
            assert not set(map(id, parts()[:-1])) & set(map(id, genuine))
            deploy(ws)
            ws.cloud.reject(503)
            if failure:
                raise failure

        genuine = parts()
        with pytest.raises(failure or AssertionError):  # a test that failed is not checked
            fail()
        assert parts() == genuine
        assert "connect" not in vars(socket.socket)

    def test_azureml_mlflow_knows_the_clouds_of_azure_afterwards(self, monkeypatch):
        """Its module lists the clouds of ARM_CLOUD_METADATA_URL, once, when it is imported."""
        clouds = pytest.importorskip("azureml.mlflow._common._cloud.cloud")
        with mock_workspace():
            monkeypatch.setattr(clouds, "KNOWN_CLOUDS", clouds.get_known_clouds())
            assert "AzureCloud" not in clouds.KNOWN_CLOUDS
        assert "AzureCloud" in clouds.KNOWN_CLOUDS

    def test_local_workspace_is_not_mocked(self, mocked_workspace, local_workspace):
        here = len(list(Model.list(local_workspace)))
        md.fetch_model(mocked_workspace).delete()
        assert mocked_workspace.models == {}
        assert len(list(Model.list(local_workspace))) == here
        assert md.fetch_environment(local_workspace).name == "tutorial-env"
        assert local_workspace.webservices == {}
        same = Workspace.get(
            local_workspace.name,
            local_workspace._auth,
            subscription_id=local_workspace.subscription_id,
            resource_group=local_workspace.resource_group,
        )
        assert len(list(Model.list(same))) == here


class TestWrongCalls:
    """Calls that fail on Azure fail in a mock."""

    @pytest.mark.parametrize(
        ("call", "error"),
        [
            (lambda ws: ws.get_defualt_datastore(), AttributeError),
            (lambda ws: Model.register(ws, "model.pkl", nmae="mine"), TypeError),
            (lambda ws: ws.get_details("too", "many"), TypeError),
            (lambda ws: md.deploy_to_aci(None, md.fetch_model(ws), None, None), TypeError),
        ],
    )
    def test_unknown_name_or_argument_raises_the_error_of_the_sdk(
        self, mocked_workspace, call, error
    ):
        with pytest.raises(error):
            call(mocked_workspace)
