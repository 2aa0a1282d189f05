import pytest
from azureml.core import Model, Webservice
from digit_report import count_errors

from mnist_deploy.errors import DeploymentError, ServiceUnavailable


def test_counts_errors(mocked_workspace, mnist_sample):
    mocked_workspace.cloud.respond_with(lambda images: [7] * len(images))
    assert count_errors(mocked_workspace, mnist_sample.images, mnist_sample.labels) == 90


def test_key_is_fetched_and_service_deleted(mocked_workspace, mnist_sample):
    count_errors(mocked_workspace, mnist_sample.images, mnist_sample.labels)
    Model.deploy.assert_called_once()
    Webservice.get_keys.assert_called_once()
    assert mocked_workspace.cloud.requests[0].images.shape == (100, 784)
    assert not mocked_workspace.webservices


def test_service_is_deleted_after_503(mocked_workspace, mnist_sample):
    mocked_workspace.cloud.reject(503)
    with pytest.raises(ServiceUnavailable):
        count_errors(mocked_workspace, mnist_sample.images, mnist_sample.labels)
    assert not mocked_workspace.webservices


def test_error_has_the_reason_of_a_failed_start(mocked_workspace, mnist_sample):
    mocked_workspace.cloud.fail_init("ModuleNotFoundError: No module named 'xgboost'")
    with pytest.raises(DeploymentError, match="xgboost"):
        count_errors(mocked_workspace, mnist_sample.images, mnist_sample.labels)


def test_works_for_real(local_workspace, mnist_sample):
    assert count_errors(local_workspace, mnist_sample.images, mnist_sample.labels) < 20
