"""The WSGI app: the REST APIs of both SDKs, and their shared routes."""

from __future__ import annotations

from flask import Flask
from werkzeug.exceptions import HTTPException

from .. import SUBSCRIPTION, mlflow_api, portal, v1, v2
from ..core.endpoints import Endpoints
from ..core.faults import Fault
from ..core.store import Store
from ..rest import STATE, AppState, answer_fault, answer_http_error
from .authentication import authentication_api, check_token
from .blobs import blob_api
from .client_registrations import ClientRegistrations, client_registration_api
from .computes import compute_api
from .datastore_blobs import datastore_blob_api
from .telemetry import telemetry_api
from .workspace import check_workspace_names, workspace_api


def create_app(
    store: Store, endpoints: Endpoints, registrations: ClientRegistrations, token: str, host: str
) -> Flask:
    """Create the control plane's app.

    Parameters
    ----------
    token : str
        The bearer token of every request, except for URLs that contain a secret.
    host : str
        The address of the listener, as ``127.0.0.1:port``.
    """
    app = create_routes()
    set_state(app, AppState(store, endpoints, token, host, {SUBSCRIPTION}), registrations)
    return app


def create_routes() -> Flask:
    """Create the app without its state, which `set_state` must set before the first request."""
    app = Flask("mnist_deploy.local", static_folder=None)
    app.config.update(PREFERRED_URL_SCHEME="https", PROVIDE_AUTOMATIC_OPTIONS=False)
    app.before_request(check_token)
    app.before_request(check_workspace_names)
    for api in (
        authentication_api,
        client_registration_api,
        workspace_api,
        blob_api,
        compute_api,
        datastore_blob_api,
        telemetry_api,
    ):
        app.register_blueprint(api)
    for part in (v1, v2, mlflow_api, portal):
        part.register(app)
    app.register_error_handler(Fault, answer_fault)
    app.register_error_handler(HTTPException, answer_http_error)
    return app


def set_state(app: Flask, state: AppState, registrations: ClientRegistrations) -> None:
    """Set the state of an app, or replace it."""
    state.add(registrations)
    for part in (v1, portal):
        part.add_state(state)
    app.extensions[STATE] = state
