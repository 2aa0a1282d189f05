"""SDK v2's client of a mocked workspace, beyond `test_contract.py`."""

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
    DeploymentError,
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


def test_context_manager_gives_a_client():
    with mock_client() as client:
        assert isinstance(client, MLClient)
        deploy(client)
        assert len(call(client)) == 3
        assert managed.connect_client() is managed.connect_client(local=True) is client


@mock_client()
def test_decorated_test_receives_client_and_fixtures(client, tmp_path):
    assert client.models.get("sklearn_mnist", version="1").tags["data"] == "MNIST"
    assert tmp_path.is_dir()


def test_coroutine_is_decorated():
    @mock_client
    async def version(client):
        return client.environments.get("tutorial-env", version="1").version

    assert asyncio.run(version()) == "1"


def test_both_sdks_have_one_workspace(mocked_client, mocked_workspace, service, tmp_path):
    migration = managed.migrate_service(service, mocked_client, tmp_path, IMAGES)
    assert (migration.compared, migration.different) == (3, 0)
    assert mocked_client.cloud is mocked_workspace.cloud
    mocked_client.cloud.assert_requests(("svc", 200), ("svc/blue", 200))


def test_missing_sdk_v2_is_reported_and_ends_the_mock(monkeypatch):
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "azure.ai.ml", None)
        with pytest.raises(WorkspaceError, match="pip install"), mock_client():
            pass
    with mock_client():
        pass


class TestCloud:
    """Settings for an endpoint, or for one of its deployments."""

    def test_answers_are_set_for_endpoints_and_deployments(self, mocked_client, cloud):
        deploy(mocked_client)
        deploy(mocked_client, deployment="green", traffic=25)
        cloud.respond_with(lambda images: [1] * len(images))
        cloud.respond_with(lambda images: [2] * len(images), service="digits/green")
        labels = [call(mocked_client)[0] for _ in range(8)]
        assert (labels.count(1), labels.count(2)) == (6, 2)
        cloud.respond_in_turn([3, 3, 3], 503, TimeoutError("slow"), [4, 4, 4], service="digits")
        assert call(mocked_client, deployment="blue") == [3, 3, 3]
        with pytest.raises(ServiceUnavailable):
            call(mocked_client, deployment="blue")
        assert call(mocked_client, deployment="blue") == [4, 4, 4]  # repeated in JSON
        statuses = [(request.service, request.status) for request in cloud.requests[-4:]]
        assert statuses == [("digits/blue", status) for status in (200, 503, 424, 200)]
        assert "slow" in mocked_client.online_deployments.get_logs("blue", "digits", lines=2)
        np.testing.assert_array_equal(cloud.requests[0].images, IMAGES)

    def test_failures_raise_the_matching_exception(self, mocked_client, cloud):
        deploy(mocked_client)
        for set_behavior, error in (
            (cloud.time_out, ScoringTimeout),
            (cloud.cut_off, ServiceUnavailable),
            (lambda: cloud.respond_with(KeyError), ScriptFailed),
        ):
            set_behavior()
            with pytest.raises(error):
                call(mocked_client)
        cloud.recover()
        cloud.delay(30, service="digits")
        with pytest.raises(ScoringTimeout):
            call(mocked_client, timeout=20)

    def test_failed_deployment_starts_again_with_the_same_spec(self, mocked_client, cloud):
        cloud.fail_init("ImportError: no module named xgboost")
        with pytest.raises(DeploymentError, match="xgboost"):
            deploy(mocked_client)
        cloud.recover()
        operations = mocked_client.online_deployments
        operations.begin_create_or_update(operations.get("blue", "digits")).result()
        assert operations.get("blue", "digits").provisioning_state == "Succeeded"

    def test_unfinished_deployment_times_out_on_the_mocked_clock(self, mocked_client, cloud):
        cloud.never_finish(service="digits/blue")
        for _ in range(2):
            before = cloud.clock.slept
            with pytest.raises(DeploymentTimeout, match="state is Updating"):
                deploy(mocked_client, timeout=1800)
            assert cloud.clock.slept - before == pytest.approx(1800, abs=60)
        cloud.recover()
        assert deploy(mocked_client).traffic == {"blue": 100}

    def test_remaining_endpoint_and_unused_setting_fail_the_test(self):
        @mock_client(assert_all_deleted=True)
        def leave_it(client):
            deploy(client)

        @mock_client()
        def leave_unused(client):
            client.cloud.reject(503, service="digits/green")

        with pytest.raises(AssertionError, match="Not deleted: the endpoint digits"):
            leave_it()
        with pytest.raises(AssertionError, match=r"reject\(503\) of digits/green: never"):
            leave_unused()

    def test_calls_are_recorded(self, mocked_client):
        deploy(mocked_client)
        mocked_client.online_deployments.begin_create_or_update.assert_called_once()
        (sent,) = mocked_client.online_deployments.begin_create_or_update.call_args.args
        assert sent.instance_type == "Standard_DS3_v2"
        mocked_client.online_endpoints.begin_delete.assert_not_called()


@pytest.mark.parametrize(
    ("call_client", "error", "message"),
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
def test_wrong_call_fails_as_it_does_on_azure(mocked_client, call_client, error, message):
    with pytest.raises(error, match=message):
        call_client(mocked_client)


def test_client_creates_entities(mocked_client, tmp_path):
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
def test_next_test_starts_with_the_initial_workspace(mocked_client, turn):
    mocked_client.online_endpoints.get.assert_not_called()
    with pytest.raises(ResourceNotFoundError):
        mocked_client.online_endpoints.get("digits")
    deploy(mocked_client)
    mocked_client.models.get.side_effect = None


def test_client_that_is_imported_in_the_block_connects_to_the_mock(tmp_path):
    program = """
import sys
from mnist_deploy.testing import mock_workspace
with mock_workspace() as ws:
    print("azure.ai" in sys.modules)
    from azure.ai.ml import MLClient
    from azure.identity import DefaultAzureCredential
    credential = DefaultAzureCredential()
    print(MLClient.from_config(credential).cloud is ws.cloud)
    client = MLClient(credential, ws.subscription_id, ws.resource_group, ws.name)
    print(*[model.name for model in client.models.list()])
"""
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path
    )
    assert run.stdout.splitlines() == ["False", "True", "sklearn_mnist"], run.stderr
