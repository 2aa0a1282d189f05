"""How the control plane says no: Azure's own error schemas, with a message that helps."""

from __future__ import annotations

import errno
import sqlite3

from flask import Flask, Response, jsonify, request
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


def install(app: Flask) -> None:
    """Answer every error of `app` in Azure's schema."""

    @app.errorhandler(Refusal)
    def refuse(refusal: Refusal) -> tuple[Response, int]:
        return jsonify(refusal.body()), refusal.status

    @app.errorhandler(HTTPException)
    def http_error(error: HTTPException) -> tuple[Response, int]:
        status = error.code or 500
        if status in (404, 405):
            return refuse(not_supported(f"{request.method} {request.path}"))
        return refuse(Refusal(status, error.name.replace(" ", ""), error.description or error.name))

    @app.errorhandler(OSError)
    @app.errorhandler(sqlite3.OperationalError)
    def disk_error(error: Exception) -> tuple[Response, int]:
        full = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        if not full and "full" not in str(error):
            raise error
        message = (
            "The disk of the local workspace is full: nothing was registered. Free some space, "
            "or move the workspace with MNIST_DEPLOY_HOME."
        )
        # 400, because the storage client repeats a 507 for a minute before it tells.
        return refuse(Refusal(400, "InsufficientStorage", message))
