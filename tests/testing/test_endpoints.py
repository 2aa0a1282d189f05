"""SDK v2's client of a mocked workspace, where the contract suite does not look."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import numpy as np
import pytest
from azure.ai.ml import MLClient
from azure.ai.ml.entities import ManagedOnlineEndpoint, Model
from azure.ai.ml.exceptions import ValidationException
from azure.core.exceptions import ResourceNotFoundError

import mnist_deploy as md
from mnist_deploy import managed
from mnist_deploy.errors import (
    DeploymentTimeout,
    ScoringTimeout,
    ScriptFailed,
    ServiceUnavailable,
    WorkspaceError,
)
from mnist_deploy.testing import mock_client

IMAGES = np.zeros((3, 784))


def deploy(client, **options):
    model = client.models.get("sklearn_mnist", label="latest")
    environment = client.environments.get("tutorial-env", label="latest")
    return managed.deploy_to_endpoint(client, model, environment, name="digits", **options)


def call(client, **options):
    endpoint = client.online_endpoints.get("digits")
    return managed.call_endpoint(client, endpoint, IMAGES, **options).tolist()


def test_a_block():
    with mock_client() as client:
        assert isinstance(client, MLClient)
        deploy(client)
        assert len(call(client)) == 3
        assert managed.connect_client() is managed.connect_client(local=True) is client


@mock_client()
def test_a_decorated_test_gets_it_beside_its_fixtures(client, tmp_path):
    assert client.models.get("sklearn_mnist", version="1").tags["data"] == "MNIST"
    assert tmp_path.is_dir()


def test_a_coroutine():
    @mock_client
    async def version(client):
        return client.environments.get("tutorial-env", version="1").version

    assert asyncio.run(version()) == "1"


def test_both_sdks_have_one_workspace(mocked_client, mocked_workspace, service, tmp_path):
    migration = managed.migrate_service(service, mocked_client, tmp_path, IMAGES)
    assert (migration.compared, migration.different) == (3, 0)
    assert mocked_client.cloud is mocked_workspace.cloud
    mocked_client.cloud.assert_requests(("svc", 200), ("svc/blue", 200))


def test_who_has_no_sdk_v2_is_told_so_and_the_mock_is_off(monkeypatch):
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "azure.ai.ml", None)
        with pytest.raises(WorkspaceError, match="pip install"), mock_client():
            pass
    with mock_client():
        pass


class TestCloud:
    """What is said of an endpoint, or of one of its deployments."""

    def test_answers(self, mocked_client, cloud):
        deploy(mocked_client)
        deploy(mocked_client, deployment="green", traffic=25)
        cloud.answer_with(lambda images: [1] * len(images))
        cloud.answer_with(lambda images: [2] * len(images), service="digits/green")
        labels = [call(mocked_client)[0] for _ in range(8)]
        assert (labels.count(1), labels.count(2)) == (6, 2)
        cloud.answer_in_turn([3, 3, 3], 503, TimeoutError("slow"), [4, 4, 4], service="digits")
        assert call(mocked_client, deployment="blue") == [3, 3, 3]
        with pytest.raises(ServiceUnavailable):
            call(mocked_client, deployment="blue")
        assert call(mocked_client, deployment="blue") == [4, 4, 4]  # once more, in JSON
        statuses = [(request.service, request.status) for request in cloud.requests[-4:]]
        assert statuses == [("digits/blue", status) for status in (200, 503, 424, 200)]
        assert "slow" in mocked_client.online_deployments.get_logs("blue", "digits", lines=2)
        np.testing.assert_array_equal(cloud.requests[0].images, IMAGES)

    def test_failures(self, mocked_client, cloud):
        deploy(mocked_client)
        for say, error in (
            (cloud.time_out, ScoringTimeout),
            (cloud.cut_off, ServiceUnavailable),
            (lambda: cloud.answer_with(KeyError), ScriptFailed),
        ):
            say()
            with pytest.raises(error):
                call(mocked_client)
        cloud.recover()
        cloud.delay(30, service="digits")
        with pytest.raises(ScoringTimeout):
            call(mocked_client, timeout=20)

    def test_a_deployment_that_never_finishes(self, mocked_client, cloud):
        cloud.never_finish(service="digits/blue")
        for _ in range(2):
            before = cloud.clock.slept
            with pytest.raises(DeploymentTimeout, match="state is Updating"):
                deploy(mocked_client, timeout=1800)
            assert cloud.clock.slept - before == pytest.approx(1800, abs=1)
        cloud.recover()
        assert deploy(mocked_client).traffic == {"blue": 100}

    def test_checks_at_the_end(self):
        @mock_client(assert_all_deleted=True)
        def leave_it(client):
            deploy(client)

        @mock_client()
        def never_ask(client):
            client.cloud.refuse(503, service="digits/green")

        with pytest.raises(AssertionError, match="Not deleted: the endpoint digits"):
            leave_it()
        with pytest.raises(AssertionError, match=r"refuse\(503\) of digits/green: never"):
            never_ask()

    def test_calls_are_on_record(self, mocked_client):
        deploy(mocked_client)
        mocked_client.online_deployments.begin_create_or_update.assert_called_once()
        (sent,) = mocked_client.online_deployments.begin_create_or_update.call_args.args
        assert sent.instance_type == "Standard_DS3_v2"
        mocked_client.online_endpoints.begin_delete.assert_not_called()


@pytest.mark.parametrize(
    ("ask", "error", "said"),
    [
        (lambda client: client.models.download("m", "1"), ResourceNotFoundError, "no model m:1"),
        (lambda client: client.online_endpoints.delete("digits"), AttributeError, "delete"),
        (lambda client: client.models.get(nmae="m"), TypeError, "name"),
        (lambda client: client.models.get("sklearn_mnist"), ValidationException, "label"),
        (
            lambda client: client.models.create_or_update(Model(name="m", path="nowhere")),
            ValidationException,
            "nowhere",
        ),
    ],
)
def test_wrong_call_fails_as_it_does_on_azure(mocked_client, ask, error, said):
    with pytest.raises(error, match=said):
        ask(mocked_client)


def test_entities_may_be_given_to_the_client_itself(mocked_client, tmp_path):
    (tmp_path / "model.bin").write_bytes(b"1")
    model = mocked_client.create_or_update(Model(name="m", path=str(tmp_path)))
    assert model.id.endswith("/models/m/versions/1")
    endpoint = ManagedOnlineEndpoint(name="digits", auth_mode="aml_token")
    mocked_client.begin_create_or_update(endpoint).result()
    deploy(mocked_client)
    assert len(call(mocked_client)) == 3
    key = mocked_client.online_endpoints.get_keys("digits").access_token
    uri = mocked_client.online_endpoints.get("digits").scoring_uri
    assert len(md.post_images(uri, IMAGES, api_key=key)) == 3


@pytest.mark.parametrize("turn", [1, 2])
def test_nothing_is_left_for_the_next_test(mocked_client, turn):
    mocked_client.online_endpoints.get.assert_not_called()
    with pytest.raises(ResourceNotFoundError):
        mocked_client.online_endpoints.get("digits")
    deploy(mocked_client)
    mocked_client.models.get.side_effect = None


def test_sdk_v2_is_loaded_for_those_only_who_connect_with_it():
    program = "import sys\nfrom mnist_deploy.testing import mock_workspace\n"
    program += "with mock_workspace(): print('azure.ai' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (run.stdout, run.stderr) == ("False\n", "")
