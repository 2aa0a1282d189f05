"""How the control plane says no: Azure's own error schemas, with a message that helps."""

from __future__ import annotations

import errno
import sqlite3
from typing import Any, TypeVar

import msgspec
from flask import Flask, Request, Response, jsonify, request
from werkzeug.exceptions import HTTPException

from ..core import faults

Struct = TypeVar("Struct")

STATUS = {
    faults.NotFound: (404, "{}NotFound"),
    faults.Conflict: (409, "{}AlreadyExists"),
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


def body(kind: type[Struct]) -> Struct:
    """What the request's JSON says, as a value of `kind`; else 400 with what is wrong in it."""
    try:
        return msgspec.json.decode(request.get_data(), type=kind)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise invalid_body(error) from error


def read_query(kind: type[Struct]) -> Struct:
    """The query of the request's URL, as a value of `kind`; else 400 with what is wrong in it."""
    try:
        return msgspec.convert(request.args.to_dict(), kind, strict=False)
    except msgspec.ValidationError as error:
        raise Refusal(400, "InvalidQuery", f"The request's query is wrong: {error}") from error


def convert(value: Any, kind: type[Struct]) -> Struct:
    """A part of a body that could be understood only later, as a value of `kind`."""
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise invalid_body(error) from error


def invalid_body(error: Exception) -> Refusal:
    return Refusal(400, "InvalidBody", f"The request's JSON is not what this call takes: {error}")


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


def install(app: Flask) -> None:
    """Answer every error of `app` in Azure's schema."""
    app.request_class = JsonRequest

    @app.errorhandler(Refusal)
    def refuse(refusal: Refusal) -> Response:
        response = jsonify(refusal.body())
        response.status_code = refusal.status
        if refusal.status == 501:  # some of the SDK's messages have room for this line alone
            response.status = "501 Not supported by the local workspace of mnist_deploy"
        return response

    @app.errorhandler(faults.Fault)
    def refuse_fault(fault: faults.Fault) -> Response:
        return refuse(refusal_of(fault))

    @app.errorhandler(HTTPException)
    def http_error(error: HTTPException) -> Response:
        status = error.code or 500
        if status in (404, 405):
            return refuse(not_supported(f"{request.method} {request.path}"))
        return refuse(Refusal(status, error.name.replace(" ", ""), error.description or error.name))

    @app.errorhandler(OSError)
    @app.errorhandler(sqlite3.OperationalError)
    def disk_error(error: Exception) -> Response:
        full = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        if not full and "full" not in str(error):
            raise error
        message = (
            "The disk of the local workspace is full: nothing was registered. Free some space, "
            "or move the workspace with MNIST_DEPLOY_HOME."
        )
        # 400, because the storage client repeats a 507 for a minute before it tells.
        return refuse(Refusal(400, "InsufficientStorage", message))
