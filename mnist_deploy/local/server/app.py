"""The whole HTTP surface: each client's REST, and what they share."""

from __future__ import annotations

from flask import Flask, Response, jsonify, request
from werkzeug.exceptions import HTTPException

from .. import portal, v1, v2
from ..core import faults
from ..core.endpoints import Endpoints
from ..core.store import Store
from .authentication import authentication_api, check_token
from .blobs import blob_api
from .client_registrations import ClientRegistrations, client_registration_api
from .computes import compute_api
from .telemetry import telemetry_api
from .workspace import workspace_api

STATUS = {
    faults.Conflict: (409, "Conflict"),
    faults.Denied: (401, "AuthenticationFailed"),
    faults.Full: (400, "InsufficientStorage"),
    faults.InUse: (409, "InUse"),
    faults.Invalid: (400, "BadRequest"),
    faults.NotFound: (404, "ResourceNotFound"),
    faults.NotSupported: (501, "NotImplemented"),
}


def create_app(
    store: Store, endpoints: Endpoints, registrations: ClientRegistrations, token: str, host: str
) -> Flask:
    """Everything that the control plane answers.

    Parameters
    ----------
    token : str
        What every request must carry, but for the few URLs that hold a secret of their own.
    host : str
        Where it is served, as ``127.0.0.1:port``.
    """
    app = Flask("mnist_deploy.local", static_folder=None)
    app.config.update(
        TOKEN=token, HOST=host, PREFERRED_URL_SCHEME="https", PROVIDE_AUTOMATIC_OPTIONS=False
    )
    app.extensions.update(store=store, endpoints=endpoints, registrations=registrations)
    app.before_request(check_token)
    for api in (
        authentication_api,
        client_registration_api,
        workspace_api,
        blob_api,
        compute_api,
        telemetry_api,
    ):
        app.register_blueprint(api)
    for rest in (v1, v2, portal):
        rest.register(app)
    app.register_error_handler(faults.Fault, refuse)
    app.register_error_handler(HTTPException, refuse_http)
    return app


def refuse(fault: faults.Fault) -> Response:
    """Answer what no client's REST has answered, in the schema of Azure Resource Manager."""
    status, code = STATUS[type(fault)]
    return error(status, code, str(fault))


def refuse_http(refusal: HTTPException) -> Response:
    status = refusal.code or 500
    if status in (404, 405):
        return refuse(faults.NotSupported(f"{request.method} {request.path}"))
    return error(status, refusal.name.replace(" ", ""), refusal.description or refusal.name)


def error(status: int, code: str, message: str) -> Response:
    answer = jsonify(error={"code": code, "message": message, "details": []})
    answer.status_code = status
    if status == 501:  # some of the SDK's messages have room for this line alone
        answer.status = "501 Not supported by the local workspace of mnist_deploy"
    return answer
