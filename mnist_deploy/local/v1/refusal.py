"""How the control plane says no: Azure's own error schemas, with a message that helps."""

from __future__ import annotations

import errno
import sqlite3
from typing import Any

from flask import Flask, Request, Response, jsonify, request
from werkzeug.exceptions import HTTPException


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


def not_supported(what: str) -> Refusal:
    """501, with the name of the call that the local workspace does not know."""
    return Refusal(
        501,
        "NotImplemented",
        f"The local workspace of mnist_deploy does not support {what}. Its README lists what "
        "it does; with a config.json of your own the same call goes to Azure.",
    )


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
