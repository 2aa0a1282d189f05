"""How the control plane says no: Azure's own error schemas, with a message that helps."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Request, Response, jsonify, request
from werkzeug.exceptions import HTTPException

from ..core import faults

STATUS = {
    faults.NotFound: (404, "{}NotFound"),
    faults.Conflict: (409, "{}AlreadyExists"),
    faults.Denied: (401, "AuthenticationFailed"),
    faults.Full: (400, "InsufficientStorage"),  # a 507 the storage client repeats for a minute
    faults.InUse: (412, "DeletionRequired"),
    faults.Invalid: (400, "Invalid{}"),
    faults.NotSupported: (501, "NotImplemented"),
    faults.Failed: (500, "{}Failed"),
}


class Refusal(Exception):
    """Ends a request with an error answer.

    Parameters
    ----------
    status : int
        The HTTP status.
    code : str
        Azure's word for it, such as ``ModelNotFound``.
    message : str
        What was wrong, what was expected, what to do.
    """

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message

    def body(self) -> dict:
        """Model management puts the error at the top level, every other API under ``error``."""
        if "/modelmanagement/" in request.path:
            detail = {"code": self.code, "message": self.message}
            return {
                "code": self.code,
                "statusCode": self.status,
                "message": self.message,
                "details": [detail],
                # What Model.delete shows of the answer, beside its status.
                **({"correlation": {"reason": self.message}} if self.status == 412 else {}),
            }
        return {"error": {"code": self.code, "message": self.message, "details": []}}


def refusal_of(fault: faults.Fault) -> Refusal:
    """A fault of the workspace in Azure's words: ``block list`` not found is BlockListNotFound."""
    status, code = STATUS[type(fault)]
    kind = fault.kind.title().replace(" ", "")
    return Refusal(status, code.format(kind), str(fault))


def not_supported(what: str) -> Refusal:
    """501, with the name of the call that the local workspace does not know."""
    return refusal_of(faults.NotSupported(what))


class Fields(dict):
    """A JSON object whose missing fields are the sender's mistake."""

    def __missing__(self, field: str) -> None:
        raise Refusal(400, "MissingField", f"The request's JSON lacks {field!r}.")


class JsonRequest(Request):
    """A request whose JSON is what the SDK sends: a list of changes to PATCH, else an object."""

    def get_json(self, *arguments: Any, **options: Any) -> Any:
        body = super().get_json(*arguments, **options)
        if self.method == "PATCH" and isinstance(body, list):
            if all(isinstance(change, dict) for change in body):
                return [Fields(change) for change in body]
        elif isinstance(body, dict):
            return Fields(body)
        raise Refusal(400, "InvalidBody", "The request's JSON is not what this call takes.")


def install(blueprint: Blueprint) -> None:
    """Answer every error of the blueprint's routes, and of those in it, in Azure's schema."""

    @blueprint.errorhandler(Refusal)
    def refuse(refusal: Refusal) -> Response:
        response = jsonify(refusal.body())
        response.status_code = refusal.status
        if refusal.status == 501:  # some of the SDK's messages have room for this line alone
            response.status = "501 Not supported by the local workspace of mnist_deploy"
        return response

    @blueprint.errorhandler(faults.Fault)
    def refuse_fault(fault: faults.Fault) -> Response:
        return refuse(refusal_of(fault))

    @blueprint.errorhandler(HTTPException)
    def refuse_http(error: HTTPException) -> Response:
        code = error.name.replace(" ", "")
        return refuse(Refusal(error.code or 500, code, error.description or error.name))
