"""The REST API that azureml-core, SDK v1, calls."""

from __future__ import annotations

from flask import Blueprint, Flask

from ..core.runs import Runs
from ..rest import AppState
from . import errors
from .artifacts import artifact_api
from .datasets import dataset_api
from .datastores import datastore_api
from .environments import environment_api
from .images import Images, image_api
from .metrics import metric_api
from .models import model_api
from .operations import operation_api
from .packages import package_api
from .profiles import profile_api
from .run_artifacts import run_artifact_api
from .run_history import experiment_api
from .runs import ReportedRuns, run_api
from .services import service_api
from .snapshots import snapshot_api
from .submissions import submission_api
from .unsupported import unsupported_api

RUN_APIS = (experiment_api, run_api, metric_api, run_artifact_api, snapshot_api, submission_api,
            datastore_api, dataset_api)  # fmt: skip


def register(app: Flask) -> None:
    """Add the routes that azureml-core calls to `app`; error responses have the SDK's schemas."""
    v1 = Blueprint("v1", __name__)
    apis = (artifact_api, model_api, environment_api, image_api, package_api, profile_api)
    for api in (*apis, operation_api, service_api, *RUN_APIS, unsupported_api):
        v1.register_blueprint(api)
    errors.install_error_handlers(v1)
    app.register_blueprint(v1)


def add_state(state: AppState) -> None:
    """Add the state that only the handlers of this API use."""
    images = state.add(Images())
    state.store.gc_roots += [images.artifacts, lambda: list(state.kept_artifacts)]
    state.add(Runs(state.store))
    state.add(ReportedRuns())
