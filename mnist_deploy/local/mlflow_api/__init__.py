"""The REST API of MLflow's tracking server, on the workspace's experiments and runs."""

from __future__ import annotations

from flask import Blueprint, Flask, Response
from werkzeug.exceptions import HTTPException

from ..core import faults
from ..rest import STATUSES, WORKSPACE, error_response
from .artifacts import artifact_api
from .experiments import experiment_api
from .logged_models import logged_model_api
from .metrics import metric_api
from .model_versions import model_version_api
from .registered_models import registered_model_api
from .runs import run_api

PLAIN = "/mlflow"  # the tracking URI of MLflow's own client
AZUREML = f"/mlflow/<version>{WORKSPACE}"  # azureml-mlflow: from ws.get_mlflow_tracking_uri()

PARTS = (
    experiment_api,
    run_api,
    metric_api,
    logged_model_api,
    registered_model_api,
    model_version_api,
    artifact_api,
)
CODES: dict[type[faults.Fault], str] = {
    faults.Conflict: "RESOURCE_ALREADY_EXISTS",
    faults.Denied: "UNAUTHENTICATED",
    faults.Failed: "INVALID_STATE",
    faults.Full: "RESOURCE_LIMIT_EXCEEDED",
    faults.InUse: "INVALID_STATE",
    faults.Invalid: "INVALID_PARAMETER_VALUE",
    faults.NotFound: "RESOURCE_DOES_NOT_EXIST",
    faults.NotSupported: "ENDPOINT_NOT_FOUND",  # MLflow then falls back to an older call
}


def register(app: Flask) -> None:
    """Add the routes that MLflow calls to `app`; their error responses have MLflow's schema."""
    for name, prefix in (("mlflow", PLAIN), ("azureml_mlflow", AZUREML)):
        api = Blueprint(name, __name__, url_prefix=prefix)
        for part in PARTS:
            api.register_blueprint(part)
        api.add_url_rule(
            "/api/<api_version>/<path:call>",
            view_func=reject_other_calls,
            methods=["GET", "POST", "PUT", "PATCH", "DELETE"],
        )
        api.register_error_handler(faults.Fault, answer_fault)
        api.register_error_handler(HTTPException, answer_http_error)
        app.register_blueprint(api)


def reject_other_calls(call: str, **_: str) -> Response:
    raise faults.NotSupported(f"MLflow's {call}")


def answer_fault(fault: faults.Fault) -> Response:
    document = {"error_code": CODES[type(fault)], "message": str(fault)}
    return error_response(STATUSES[type(fault)], document)


def answer_http_error(error: HTTPException) -> Response:
    document = {"error_code": "BAD_REQUEST", "message": error.description or error.name}
    return error_response(error.code or 500, document)
