"""How SDK v2 is told no: Azure Resource Manager's error schema."""

from __future__ import annotations

from flask import Blueprint, Response, jsonify
from werkzeug.exceptions import HTTPException

from ..bodies import Document
from ..core.faults import (
    Conflict,
    Denied,
    Failed,
    Fault,
    Full,
    InUse,
    Invalid,
    NotFound,
    NotSupported,
)

ANSWERS: dict[type[Fault], tuple[int, str]] = {
    Denied: (401, "AuthenticationFailed"),
    NotFound: (404, "ResourceNotFound"),
    Conflict: (409, "ResourceConflict"),
    InUse: (409, "ResourceInUse"),
    Invalid: (400, "UserError"),
    Full: (400, "InsufficientStorage"),  # the SDK would repeat a 507 before it tells
    NotSupported: (501, "NotImplemented"),
    Failed: (400, "ResourceNotReady"),
}


def describe(fault: Fault) -> Document:
    """The ``error`` of an answer or of an operation that failed."""
    code = ANSWERS[type(fault)][1]
    return {"code": code, "message": str(fault), "target": fault.kind, "details": []}


def install(blueprint: Blueprint) -> None:
    """Answer every fault of the blueprint's routes, and of those in it, in this schema."""

    @blueprint.errorhandler(Fault)
    def refuse(fault: Fault) -> Response:
        answer = jsonify(error=describe(fault))
        answer.status_code = ANSWERS[type(fault)][0]
        return answer

    @blueprint.errorhandler(HTTPException)
    def refuse_http(error: HTTPException) -> Response:
        code = error.name.replace(" ", "")
        answer = jsonify(error={"code": code, "message": error.description, "details": []})
        answer.status_code = error.code or 500
        return answer
