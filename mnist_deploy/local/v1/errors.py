"""Error responses for SDK v1, in the schemas of the APIs that it calls."""

from __future__ import annotations

from flask import Blueprint, Response, request
from werkzeug.exceptions import HTTPException

from ..bodies import Document
from ..core import faults
from ..host import filesystem
from ..rest import STATUSES, error_code, error_response

CODES: dict[type[faults.Fault], str] = {
    faults.NotFound: "{}NotFound",
    faults.Conflict: "{}AlreadyExists",
    faults.Denied: "AuthenticationFailed",
    faults.Full: "InsufficientStorage",
    faults.InUse: "DeletionRequired",
    faults.Invalid: "Invalid{}",
    faults.NotSupported: "NotImplemented",
    faults.Failed: "{}Failed",
}
# Of model management's API. `Failed` occurs only as the error of an operation.
MMS_STATUSES = STATUSES | {faults.InUse: 412, faults.Failed: 500}


def serialize_fault(fault: faults.Fault) -> Document:
    """A fault in model management's schema; `Invalid` of kind ``model name``: InvalidModelName."""
    # The SDK decodes the message as unicode_escape, twice: Windows' paths must not be escapes.
    message = filesystem.with_slashes(str(fault))
    return {
        "code": CODES[type(fault)].format(fault.kind.title().replace(" ", "")),
        "statusCode": MMS_STATUSES[type(fault)],
        "message": message,
        "details": [],
    }


def install_error_handlers(blueprint: Blueprint) -> None:
    """Install handlers that send each error of the blueprint's routes in Azure's schema."""

    @blueprint.errorhandler(faults.Fault)
    def answer_fault(fault: faults.Fault) -> Response:
        return make_error_response(serialize_fault(fault))

    @blueprint.errorhandler(HTTPException)
    def answer_http_error(error: HTTPException) -> Response:
        return make_error_response(
            {
                "code": error_code(error),
                "statusCode": error.code or 500,
                "message": error.description or error.name,
                "details": [],
            }
        )


def make_error_response(error: Document) -> Response:
    """The error response: model management has the fields at the top, others below ``error``."""
    if "/modelmanagement/" in request.path:
        # The SDK shows this field of a model's error.
        error = error | {"correlation": {"reason": error["message"]}}
        return error_response(error["statusCode"], error)
    fields = ("code", "message", "details")
    return error_response(error["statusCode"], {"error": {name: error[name] for name in fields}})
