"""The scoring script of a scikit-learn model that was deployed without an inference config.

A request is ``{"data": [[…], …]}``, a row for each prediction, and may name a ``method``:
``predict`` or ``predict_proba``. The default is ``predict_proba`` if the model has that method.
The answer has the result of the method under its name: ``{"predict": [7, 2, …]}``.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import joblib
import numpy as np
from azureml_inference_server_http.api.aml_response import AMLResponse

METHODS = ("predict_proba", "predict")  # the first that the model has is the default

model: Any


def init() -> None:
    """Load the model's one file."""
    global model
    folder = Path(os.environ["AZUREML_MODEL_DIR"])
    files = [path for path in folder.rglob("*") if path.is_file()]
    if len(files) != 1:
        raise RuntimeError(
            "Without an inference config, a model must be one file, saved by joblib or pickle; "
            f"this one has {len(files)}."
        )
    model = joblib.load(files[0])
    if not hasattr(model, "predict"):
        raise RuntimeError(
            f"{type(model).__name__} has no predict method: deploy it with an entry script."
        )


def run(body: str) -> dict | AMLResponse:
    """Predict by the method that the request names."""
    try:
        request = json.loads(body)
        if not isinstance(request, dict) or "data" not in request:
            raise ValueError('expected {"data": [[…], …]}, a row for each prediction')
        known = [method for method in METHODS if hasattr(model, method)]
        method = request.get("method", known[0])
        if method not in known:
            raise ValueError(f"method {method!r} is not among {', '.join(known)}")
        found = getattr(model, method)(np.asarray(request["data"]))
    except (TypeError, ValueError) as error:
        return AMLResponse(
            {"message": f"The request cannot be scored: {error}"}, 400, json_str=True
        )
    # Of several outputs, predict_proba gives a list of arrays.
    return {method: [each.tolist() for each in found] if type(found) is list else found.tolist()}
