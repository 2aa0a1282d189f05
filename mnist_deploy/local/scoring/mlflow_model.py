"""The scoring script of an MLflow model that was deployed without code.

The request format follows the article "Guidelines for deploying MLflow models". The key
``input_data`` holds a table in pandas' split orientation (``columns``, ``index``, ``data``), a
list of records, a list of rows, or a named tensor for each input of the signature. The optional
key ``params`` holds the parameters of the signature. The response is the prediction as plain JSON:
a list, or a list of records if the model returns a table.
"""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from typing import Any

MISSING = (
    "MLflow is not installed in this Python, which serves the model. Install it together with the "
    "rest: pip install 'mnist-deploy[mlflow]'."
)
EXPECTED = (
    'expected {"input_data": {"columns": […], "index": […], "data": [[…], …]}}, or a list of rows, '
    'a list of records or {NAME: tensor, …} as "input_data"'
)
SPLIT = {"columns", "index", "data"}  # the keys of a table in pandas' split orientation

model: Any


def init() -> None:
    """Load the model."""
    global model
    model = load_model()


def load_model() -> Any:
    """Load the model from the folder that holds the file ``MLmodel``."""
    try:
        from mlflow import pyfunc
    except ModuleNotFoundError as error:
        if error.name != "mlflow":
            raise
        raise RuntimeError(MISSING) from error
    folder = Path(os.environ["AZUREML_MODEL_DIR"])
    found = sorted(folder.rglob("MLmodel"), key=lambda file: len(file.parts))
    if not found:
        raise RuntimeError("The model has no file MLmodel: it is not an MLflow model.")
    return pyfunc.load_model(str(found[0].parent))


def run(body: str) -> Any:
    """Predict, and return the prediction as values that JSON can represent."""
    from azureml_inference_server_http.api.aml_response import AMLResponse
    from mlflow.exceptions import MlflowException

    try:
        request = json.loads(body)
        if not isinstance(request, dict) or "input_data" not in request:
            raise ValueError(EXPECTED)
        if unknown := sorted(request.keys() - {"input_data", "params"}):
            raise ValueError(f"unknown keys {', '.join(unknown)}: {EXPECTED}")
        data = parse_input(request["input_data"])
        predicted = predict(data, request.get("params"))
    except (MlflowException, TypeError, ValueError) as error:
        message = f"The request cannot be scored: {error}"
        return AMLResponse({"message": message}, 400, json_str=True)
    return to_json(predicted)


def parse_input(data: Any) -> Any:
    """Convert a request to the types of the model's signature: a table, an array or arrays."""
    import pandas  # type: ignore[import-untyped]
    from mlflow.pyfunc.scoring_server import infer_and_parse_data

    schema = model.metadata.get_input_schema()
    if isinstance(data, dict) and {"columns", "data"} <= data.keys() <= SPLIT:
        return infer_and_parse_data({"dataframe_split": data}, schema)
    is_list = isinstance(data, list) and bool(data)
    if is_list and all(isinstance(each, dict) for each in data):
        return infer_and_parse_data({"dataframe_records": data}, schema)
    if schema is None or schema.is_tensor_spec():
        return infer_and_parse_data({"inputs": data}, schema)
    if is_list:  # rows, or the values of one column, without column names
        names = schema.input_names() if schema.has_input_names() else None
        table = pandas.DataFrame(data, columns=names)
        return infer_and_parse_data({"dataframe_split": table.to_dict("split")}, schema)
    if isinstance(data, dict):
        table = pandas.DataFrame(data)
        return infer_and_parse_data({"dataframe_split": table.to_dict("split")}, schema)
    raise ValueError(EXPECTED)


def predict(data: Any, params: dict[str, Any] | None) -> Any:
    return model.predict(data, params=params) if params else model.predict(data)


def to_json(predicted: Any) -> Any:
    """Convert a prediction to lists, numbers and records; NaN and infinity become null."""
    from mlflow.pyfunc.scoring_server import unwrapped_predictions_to_json

    text = io.StringIO()
    unwrapped_predictions_to_json(predicted, text)
    return json.loads(text.getvalue(), parse_constant=lambda _: None)
