"""Maps scoring responses other than 200 to exceptions.

The status codes are those of Microsoft's article "Troubleshoot online endpoints deployment and
scoring" for managed and Kubernetes online endpoints, and of "Troubleshoot remote model
deployment" for services of SDK v1 on ACI and AKS.
"""

from __future__ import annotations

from collections.abc import Mapping

import orjson
import requests

from ..errors import (
    AuthenticationFailed,
    InputRejected,
    PayloadTooLarge,
    ScoringError,
    ScoringTimeout,
    ScriptFailed,
    ServiceUnavailable,
)
from .answers import excerpt

MODEL_ERROR = 424  # a managed online endpoint: the container responded with another status than 200
STATUS_HEADER = "ms-azureml-model-error-statuscode"  # the status of the container
REASON_HEADER = "ms-azureml-model-error-reason"
RUN_FAILED_HEADER = "x-ms-run-function-failed"  # Microsoft's server: run() raised
_SCORING_TIMEOUT = "Scoring timeout after"  # Microsoft's server, with status 500: run() was stopped

_ERRORS: list[tuple[tuple[int, ...], type[ScoringError], str]] = [
    (
        (401, 403),
        AuthenticationFailed,
        "Pass the primary or secondary key of service.get_keys() as api_key, or use call_service, "
        "which fetches the key.",
    ),
    (
        (404,),
        ServiceUnavailable,
        "Check the scoring URI, and that a deployment of the endpoint receives traffic.",
    ),
    (
        (408, 504),
        ScoringTimeout,
        "The service stopped waiting for run(): send smaller batches (batch_size), or raise the "
        "request time-out of the deployment.",
    ),
    ((413,), PayloadTooLarge, "Send fewer rows in one request: a smaller batch_size."),
    (
        (429,),
        ServiceUnavailable,
        "The service has more requests than it can process: send fewer at the same time, or "
        "deploy more instances.",
    ),
    ((502, 503), ServiceUnavailable, "Retry when the state of the service is Healthy."),
    ((500,), ScriptFailed, "run() of the scoring script failed: read service.get_logs()."),
]


def build_scoring_error(uri: str, response: requests.Response) -> ScoringError:
    """Return the exception for a response whose status is not 200."""
    message = _message(response.content).rstrip(".")
    outcome = f"{uri} responded with {response.status_code}: {message}"
    status = response.status_code
    if status == MODEL_ERROR:
        status = _container_status(response.headers)
        reason = response.headers.get(REASON_HEADER, "no reason given")
        outcome += f" (the container responded with {status}, {reason})"
    error, advice = _find_error(status, message, response.headers)
    return error(f"{outcome}. {advice}".rstrip(), status=status)


def _find_error(
    status: int, message: str, headers: Mapping[str, str]
) -> tuple[type[ScoringError], str]:
    if status in (500, 502) and _SCORING_TIMEOUT in message:
        status = 408
    elif status == 502 and headers.get(RUN_FAILED_HEADER, "").lower() == "true":
        status = 500  # Kubernetes and AKS respond with 502 if run() raised
    for statuses, error, advice in _ERRORS:
        if status in statuses:
            return error, advice
    if 400 <= status < 500:
        return InputRejected, ""
    return ScoringError, "Check the scoring URI, and that run() responds with 200."


def _container_status(headers: Mapping[str, str]) -> int:
    value = headers.get(STATUS_HEADER, "")
    return int(value) if value.isdecimal() else 500


def _message(content: bytes) -> str:
    try:
        return str(orjson.loads(content)["message"])
    except (orjson.JSONDecodeError, TypeError, KeyError):
        return excerpt(content)
