"""Documented status codes of ACI, AKS, managed and Kubernetes endpoints become exceptions.

Microsoft Learn: "Troubleshoot online endpoints deployment and scoring" (managed and Kubernetes),
"Troubleshoot remote model deployment" (SDK v1, ACI and AKS).
"""

from __future__ import annotations

import numpy as np
import pytest
from scripted_server import ScriptedServer, respond_always, zeros_for_json

from mnist_deploy import post_images
from mnist_deploy.errors import (
    AuthenticationFailed,
    InputRejected,
    PayloadTooLarge,
    ScoringError,
    ScoringTimeout,
    ScriptFailed,
    ServiceUnavailable,
)

IMAGES = np.zeros((3, 784))
RUN_FAILED = {"X-Ms-Run-Function-Failed": "True"}
FALLS_BACK, SENT_ONCE = 2, 1  # requests: as IDX and as JSON, or as IDX alone


def model_error(status):
    return {
        "ms-azureml-model-error-statuscode": str(status),
        "ms-azureml-model-error-reason": "model_error",
    }


STATUS_CODES = [  # host, HTTP status, headers, exception, its status, requests
    ("managed", 424, model_error(400), InputRejected, 400, FALLS_BACK),
    ("managed", 424, model_error(413), PayloadTooLarge, 413, SENT_ONCE),
    ("managed", 424, model_error(415), InputRejected, 415, FALLS_BACK),
    ("managed", 424, model_error(500), ScriptFailed, 500, FALLS_BACK),
    ("managed", 424, model_error(503), ServiceUnavailable, 503, SENT_ONCE),
    ("managed", 424, model_error(204), ScoringError, 204, FALLS_BACK),
    ("managed", 424, {}, ScriptFailed, 500, FALLS_BACK),
    ("managed", 401, {}, AuthenticationFailed, 401, SENT_ONCE),
    ("managed", 403, {}, AuthenticationFailed, 403, SENT_ONCE),
    ("managed, no deployment with traffic", 404, {}, ServiceUnavailable, 404, SENT_ONCE),
    ("managed, request_timeout_ms", 408, {}, ScoringTimeout, 408, SENT_ONCE),
    ("managed", 413, {}, PayloadTooLarge, 413, SENT_ONCE),
    ("managed", 429, {}, ServiceUnavailable, 429, SENT_ONCE),
    ("Kubernetes, AKS: run() raised", 502, RUN_FAILED, ScriptFailed, 502, FALLS_BACK),
    ("Kubernetes, AKS: infrastructure", 502, {}, ServiceUnavailable, 502, SENT_ONCE),
    ("Kubernetes, AKS: no replica is ready", 503, {}, ServiceUnavailable, 503, SENT_ONCE),
    ("Kubernetes, AKS: time-out", 504, {}, ScoringTimeout, 504, SENT_ONCE),
    ("ACI: run() raised", 500, RUN_FAILED, ScriptFailed, 500, FALLS_BACK),
    ("ACI", 400, {}, InputRejected, 400, FALLS_BACK),
    ("not a scoring URI", 302, {}, ScoringError, 302, FALLS_BACK),
]


@pytest.mark.parametrize(("host", "status", "headers", "error", "error_status", "sent"),
                         STATUS_CODES)  # fmt: skip
def test_status_code_becomes_exception(host, status, headers, error, error_status, sent):
    respond = respond_always(status, {"message": "details of the failure"}, headers)
    with ScriptedServer(respond) as server, pytest.raises(error, match="details of") as caught:
        post_images(server.uri, IMAGES, retry_timeout=0)
    assert type(caught.value) is error
    assert caught.value.status == error_status
    assert len(server.bodies) == sent


@pytest.mark.parametrize(
    ("status", "advice"),
    [
        (403, "get_keys"),
        (404, "deployment of the endpoint receives traffic"),
        (408, "smaller batches"),
        (413, "smaller batch_size"),
        (429, "deploy more instances"),
        (500, "get_logs"),
        (503, "Healthy"),
        (302, "Check the scoring URI"),
    ],
)
def test_message_of_exception_has_advice(status, advice):
    message = f"responded with {status}: nothing.*{advice}"
    respond = respond_always(status, b"")
    with ScriptedServer(respond) as server, pytest.raises(ScoringError, match=message):
        post_images(server.uri, IMAGES, retry_timeout=0)


def test_scoring_timeout_of_microsofts_server_is_a_timeout():
    """On ACI: its status is 500, and a second request would wait as long as the first."""
    content = b"Scoring timeout after 1000 ms"
    for body in (content, {"message": content.decode()}):
        respond = respond_always(500, body, RUN_FAILED)
        with ScriptedServer(respond) as server, pytest.raises(ScoringTimeout):
            post_images(server.uri, IMAGES)
        assert len(server.bodies) == 1


@pytest.mark.parametrize("status", [400, 500])
def test_json_script_behind_managed_endpoint_gets_json(status):
    """The tutorial's script raises on IDX (500), or Microsoft's server rejects it (400)."""

    def respond(handler, body):
        result = zeros_for_json(handler, body)
        return result if result[0] == 200 else (424, b"", model_error(status))

    with ScriptedServer(respond) as server:
        assert post_images(server.uri, IMAGES).tolist() == [0, 0, 0]
    assert len(server.bodies) == 2
