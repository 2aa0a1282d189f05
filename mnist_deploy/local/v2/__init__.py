"""The REST API that azure-ai-ml, SDK v2, calls."""

from __future__ import annotations

from flask import Blueprint, Flask

from .batch_endpoints import batch_endpoint_api
from .batch_jobs import batch_job_api
from .codes import code_api
from .data_assets import data_api
from .datastores import datastore_api
from .deployments import deployment_api
from .endpoints import endpoint_api
from .environments import environment_api
from .job_outputs import job_output_api
from .jobs import job_api
from .models import model_api
from .operations import operation_api
from .partial_updates import partial_update_api
from .unsupported import unsupported_api


def register(app: Flask) -> None:
    """Add the routes that azure-ai-ml calls to `app`."""
    v2 = Blueprint("v2", __name__)
    for api in (model_api, environment_api, code_api, datastore_api,
                endpoint_api, deployment_api, partial_update_api, data_api, job_api,
                batch_endpoint_api, batch_job_api, job_output_api,
                operation_api, unsupported_api):  # fmt: skip
        v2.register_blueprint(api)
    app.register_blueprint(v2)
