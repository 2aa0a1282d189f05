"""Long-running operations: the route that the SDK polls until an operation has ended."""

from __future__ import annotations

from typing import Annotated

from flask import Blueprint, Response, jsonify, request, url_for
from msgspec import Meta, Struct

from ..bodies import Document, query
from ..core.operations import Operation
from ..rest import OPERATION_LOCATION, endpoints
from .artifacts import content_uri
from .errors import serialize_fault
from .models import MMS

PACKAGE = "PackageDockerBuildContext"
LONG_POLL_TIMEOUT = 10.0  # seconds that the response about a running operation is delayed

operation_api = Blueprint("operations", __name__)


def make_accepted_response(operation: Operation) -> Response:
    """A response 202 with the URL at which the SDK polls the operation."""
    view = request.view_args or {}
    location = url_for(
        "v1.operations.show_operation",
        operation_id=operation.id,
        **{part: view[part] for part in ("subscription", "group", "workspace")},
    )
    return Response(status=202, headers={OPERATION_LOCATION: location})


class OperationQuery(Struct):
    offset: Annotated[int, Meta(ge=0)] = 0


@operation_api.get(f"{MMS}/operations/<operation_id>")
def show_operation(operation_id: str, **_: str) -> Response:
    operation = endpoints().operations.get(operation_id)
    offset = query(OperationQuery).offset
    is_first = not operation.was_polled
    operation.was_polled = True
    if not serialize_log(operation)[offset:]:
        # The SDK sleeps five seconds between two polls. It polls only once if the
        # first response is delayed until there is something to report.
        operation.wait(LONG_POLL_TIMEOUT)
    state, log = operation.state, serialize_log(operation)[offset:]
    if log and is_first:  # the SDK prints an existing log from its second poll on
        state = "Running"
    answer: Document = {
        "id": operation.id,
        "operationType": operation.kind,
        "parentRequestId": operation.id,
        "state": state,
        "createdTime": operation.created,
    }
    if state != "Running":
        answer["endTime"] = operation.ended
    if operation.error and state != "Running":
        answer["error"] = serialize_fault(operation.error)
        answer["operationDetails"] = {"subOperationType": "DeployService"}
    if operation.kind == PACKAGE:
        answer["operationLog"] = content_uri(package_path(operation, "log.txt"), "read")
    if operation.resource:
        answer["resourceLocation"] = operation.resource
    if log:
        answer["streamingOperationLog"] = log
    return jsonify(answer)


def package_path(operation: Operation, name: str = "") -> str:
    """The path of a package's files in the store."""
    return f"LocalUpload/{operation.id}/{name}".rstrip("/")


def serialize_log(operation: Operation) -> str:
    """The log in the form that the SDK parses: it splits the text at # and |."""
    return "".join(
        f"{time:%Y%m%d%H%M%S}|{line.replace('#', ' ').replace('|', ' ')}#"
        for time, line in list(operation.log)
    )
