"""The documented status codes of each platform; a row cites the article that it is taken from."""

from __future__ import annotations

import pytest

from mnist_deploy.local.platforms import PLATFORMS, RequestSettings, platform_of

ONLINE = "Troubleshoot online endpoint deployment and scoring, HTTP status codes"
V1 = "Troubleshoot remote model deployment (SDK v1), HTTP status code 502, 503, 504"
AKS = "AksWebservice.deploy_configuration, max_request_wait_time"
SERVER = "Azure Machine Learning inference HTTP server, response codes"

RAISED = 500, {"x-ms-run-function-failed": "True"}
CHOSEN = 400, {"x-ms-run-function-failed": "False"}


@pytest.mark.parametrize(
    ("platform", "container", "status", "article"),
    [
        ("aci", (200, {}), 200, SERVER),
        ("aci", RAISED, 500, SERVER),
        ("aci", CHOSEN, 400, SERVER),
        ("aks", (200, {}), 200, SERVER),
        ("aks", RAISED, 502, V1),
        ("aks", CHOSEN, 400, SERVER),
        ("managed", (200, {}), 200, ONLINE),
        ("managed", RAISED, 424, ONLINE),
        ("managed", CHOSEN, 424, ONLINE),
        ("managed", (204, {}), 424, ONLINE),
        ("managed", (302, {}), 424, ONLINE),
        ("kubernetes", (200, {}), 200, ONLINE),
        ("kubernetes", RAISED, 502, ONLINE),
        ("kubernetes", CHOSEN, 400, SERVER),
    ],
)
def test_container_answer_gets_the_documented_status(platform, container, status, article):
    assert PLATFORMS[platform].translate_answer(*container)[0] == status, article


def test_managed_endpoint_names_the_status_of_the_container_in_azures_headers():
    _, headers = PLATFORMS["managed"].translate_answer(415, {})
    assert headers == {
        "ms-azureml-model-error-statuscode": "415",
        "ms-azureml-model-error-reason": "model_error",
    }


@pytest.mark.parametrize(
    ("platform", "timeout", "overload", "article"),
    [
        ("aks", 504, 503, f"{V1}; {AKS}"),
        ("managed", 408, 429, ONLINE),
        ("kubernetes", 504, 503, ONLINE),
    ],
)
def test_front_end_rejects_with_the_documented_status(platform, timeout, overload, article):
    row = PLATFORMS[platform]
    assert (row.timeout, row.overload) == (timeout, overload), article


def test_twice_the_concurrent_requests_of_all_instances_are_admitted():
    assert RequestSettings(max_concurrent=3).max_admitted(2) == 12  # "2 * max_concurrent..."
    assert RequestSettings().max_admitted(2) is None


@pytest.mark.parametrize(
    ("kind", "compute", "name"),
    [
        ("service", "", "aci"),
        ("service", "cluster", "aks"),
        ("endpoint", "", "managed"),
        ("endpoint", "cluster", "kubernetes"),
    ],
)
def test_platform_follows_from_kind_and_cluster(kind, compute, name):
    assert platform_of(kind, compute).name == name
