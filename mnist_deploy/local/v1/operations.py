"""Long-running operations: accepted at once, asked about until they are over."""

from __future__ import annotations

from flask import Blueprint, Response, current_app, jsonify, request, url_for

from ..core.operations import Operation
from .models import MMS, Document
from .refusal import Refusal

HOLD = 10.0  # seconds that the answer about a running operation is held back

operation_api = Blueprint("operations", __name__)


def accepted(operation: Operation) -> Response:
    """202, with the place where the SDK asks how far it is."""
    view = request.view_args or {}
    location = url_for(
        "operations.show_operation",
        operation_id=operation.id,
        **{part: view[part] for part in ("subscription", "group", "workspace")},
    )
    return Response(status=202, headers={"Operation-Location": location})


@operation_api.get(f"{MMS}/operations/<operation_id>")
def show_operation(operation_id: str, **_: str) -> Response:
    operation = current_app.extensions["services"].operations.get(operation_id)
    if operation is None:
        raise Refusal(404, "OperationNotFound", f"There is no operation {operation_id}.")
    offset = int(request.args.get("offset", 0))
    if not operation.log_after(offset):
        # The SDK sleeps five seconds between two questions: it asks only once if the
        # first answer is held until there is something to tell.
        operation.wait(HOLD)
    state, log = operation.state, operation.log_after(offset)
    answer: Document = {
        "id": operation.id,
        "operationType": operation.kind,
        "state": state,
        "createdTime": operation.created,
    }
    if state != "Running":
        answer["endTime"] = operation.ended
    if operation.error:
        answer["error"] = operation.error
        answer["operationDetails"] = {"subOperationType": "DeployService"}
    if operation.resource:
        answer["resourceLocation"] = operation.resource
    if log:
        answer["streamingOperationLog"] = log
    return jsonify(answer)
