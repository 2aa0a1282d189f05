"""How SDK v1 is told no: Azure's own error schemas, with a message that helps."""

from __future__ import annotations

from flask import Blueprint, Response, jsonify, request
from werkzeug.exceptions import HTTPException

from ..bodies import Document
from ..core import faults

ANSWERS: dict[type[faults.Fault], tuple[int, str]] = {
    faults.NotFound: (404, "{}NotFound"),
    faults.Conflict: (409, "{}AlreadyExists"),
    faults.Denied: (401, "AuthenticationFailed"),
    faults.Full: (400, "InsufficientStorage"),  # a 507 the storage client repeats for a minute
    faults.InUse: (412, "DeletionRequired"),
    faults.Invalid: (400, "Invalid{}"),
    faults.NotSupported: (501, "NotImplemented"),
    faults.Failed: (500, "{}Failed"),  # in an operation, never the answer to a request
}


def describe(fault: faults.Fault) -> Document:
    """A fault as model management's error: ``model name`` that is invalid is InvalidModelName."""
    status, code = ANSWERS[type(fault)]
    return {
        "code": code.format(fault.kind.title().replace(" ", "")),
        "statusCode": status,
        "message": str(fault),
        "details": [],
    }


def install(blueprint: Blueprint) -> None:
    """Answer every error of the blueprint's routes, and of those in it, in Azure's schema."""

    @blueprint.errorhandler(faults.Fault)
    def refuse(fault: faults.Fault) -> Response:
        return answer(describe(fault))

    @blueprint.errorhandler(HTTPException)
    def refuse_http(error: HTTPException) -> Response:
        return answer(
            {
                "code": error.name.replace(" ", ""),
                "statusCode": error.code or 500,
                "message": error.description or error.name,
                "details": [],
            }
        )


def answer(error: Document) -> Response:
    """Model management puts the error at the top level, every other API under ``error``."""
    if "/modelmanagement/" in request.path:
        # Of a model's errors the SDK shows this field, and of the others only their types.
        response = jsonify(error | {"correlation": {"reason": error["message"]}})
    else:
        response = jsonify(error={name: error[name] for name in ("code", "message", "details")})
    response.status_code = error["statusCode"]
    if response.status_code == 501:  # some of the SDK's messages have room for this line alone
        response.status = "501 Not supported by the local workspace of mnist_deploy"
    return response
