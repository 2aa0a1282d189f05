"""Long-running operations: the route that the SDK polls until an operation has ended."""

from __future__ import annotations

from flask import Blueprint, Response, jsonify, url_for

from ..bodies import Document
from ..core.operations import Operation
from ..rest import ASYNC_OPERATION, WORKSPACE, endpoints, serialize_fault, state
from .resources import resource_id, workspace_names

OPERATIONS = f"{WORKSPACE}/operations"
LONG_POLL_TIMEOUT = 20.0  # seconds that the response about a running operation is delayed

operation_api = Blueprint("operations", __name__)


def operation_headers(operation: Operation) -> dict[str, str]:
    """The header with the URL that the SDK polls."""
    subscription, group, workspace = workspace_names()
    path = url_for(
        "v2.operations.show_operation",
        subscription=subscription,
        group=group,
        workspace=workspace,
        operation_id=operation.id,
    )
    return {ASYNC_OPERATION: state().url + path}


@operation_api.get(f"{OPERATIONS}/<operation_id>")
def show_operation(operation_id: str, **_: str) -> Response:
    operation = endpoints().operations.get(operation_id)
    # The SDK sleeps five seconds between two polls: with a delayed response, one poll is enough.
    operation.wait(LONG_POLL_TIMEOUT)
    answer: Document = {
        "id": resource_id("operations", operation.id),
        "name": operation.id,
        "status": "InProgress" if operation.state == "Running" else operation.state,
        "startTime": operation.created,
    }
    if operation.ended:
        answer["endTime"] = operation.ended
    if operation.error is not None:
        answer["error"] = serialize_fault(operation.error)
    return jsonify(answer)
