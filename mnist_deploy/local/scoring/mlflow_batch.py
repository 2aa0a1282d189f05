"""The batch scoring script of an MLflow model that was deployed without code.

Formats of files and results follow the article "Deploy MLflow models in batch deployments".
``predict`` is called once for each file: with a DataFrame of the signature's types for a table
(``.csv``, ``.parquet``, ``.pqt``), with an array of the signature's shape for an image. Each line
of the results has three fields separated by commas: row number (tables only), prediction and file
name.
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .mlflow_model import load_model

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd  # type: ignore[import-untyped]

PARQUET = (".parquet", ".pqt")
TABLES = (".csv", *PARQUET)
IMAGES = (".png", ".jpg", ".jpeg", ".tiff", ".bmp", ".gif")

model: Any


class InputFileError(Exception):
    """An invalid input file: the whole job fails, and the mini-batch is not retried."""


def init() -> None:
    global model
    model = load_model()


def run(mini_batch: list[str]) -> list[str]:
    """Score each file, and return its result lines as one text.

    Raises
    ------
    InputFileError
        If a file cannot be read, or its type does not match the signature.
    """
    return [score_file(Path(path)) for path in mini_batch]


def score_file(path: Path) -> str:
    from mlflow.exceptions import MlflowException

    suffix = path.suffix.lower()
    try:
        data = read_table(path) if suffix in TABLES else read_image(path, suffix)
    except Exception as error:
        raise InputFileError(describe(path, error)) from error
    try:
        predicted = model.predict(data)
    except MlflowException as error:  # the signature is enforced
        raise InputFileError(describe(path, error)) from error
    return write_lines(predicted, path.name, has_row_numbers=suffix in TABLES)


def describe(path: Path, error: Exception) -> str:
    return f"Error processing input file: '{path}'. {type(error).__name__}: {error}"


def read_table(path: Path) -> pd.DataFrame:
    import pandas as pd

    if path.suffix.lower() in PARQUET:
        return pd.read_parquet(path)
    types, dates = list_column_types()
    return pd.read_csv(path, dtype=types, parse_dates=dates)


def list_column_types() -> tuple[Any, list[str] | bool]:
    """Return the arguments ``dtype`` and ``parse_dates`` of `pandas.read_csv`.

    Columns without a type in CSV files, and boolean columns, are validated by MLflow, which
    rejects values of other types.
    """
    from mlflow.types import DataType

    schema = model.metadata.get_input_schema()
    if schema is None:
        return None, False
    if schema.is_tensor_spec():
        return schema.inputs[0].type, False
    read_as: dict[Any, Any] = {DataType.string: str}
    numbers = (DataType.integer, DataType.long, DataType.float, DataType.double)
    read_as |= {each: each.to_numpy() for each in numbers}
    columns = [each for each in schema.inputs if each.name is not None]
    types = {each.name: read_as[each.type] for each in columns if each.type in read_as}
    return types, [each.name for each in columns if each.type == DataType.datetime]


def read_image(path: Path, suffix: str) -> np.ndarray:
    """Return the pixels of an image, with the shape and type of the signature, if any."""
    import numpy as np

    if suffix not in IMAGES:
        known = ", ".join([*TABLES, *IMAGES])
        raise ValueError(
            f"File type '{suffix.lstrip('.')}' is not supported, only {known}. Deploy the model "
            "with a scoring script for other files."
        )
    from PIL import Image

    with Image.open(path) as image:
        pixels = np.asarray(image)
    schema = model.metadata.get_input_schema()
    if schema is None:
        return pixels
    if not schema.is_tensor_spec():
        raise ValueError("the model's signature has columns; for images it must be a tensor")
    [spec] = schema.inputs
    return reshape(pixels, spec.shape).astype(spec.type)


def reshape(pixels: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Reshape pixels to one example of `shape`; axis 0 counts examples, -1 is any size."""
    if shape.count(-1) > 1:
        if len(shape) != pixels.ndim + 1:
            raise ValueError(f"an image of shape {pixels.shape} does not fit into {shape}")
        return pixels[None]
    return pixels.reshape(tuple(shape))


def write_lines(predicted: Any, name: str, *, has_row_numbers: bool) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator=os.linesep)
    for number, values in enumerate(list_predictions(predicted)):
        writer.writerow([*([number] if has_row_numbers else []), *values, name])
    return text.getvalue().removesuffix(os.linesep)


def list_predictions(predicted: Any) -> Iterator[list[Any]]:
    """Yield the values of each prediction: the columns of a table, otherwise one value."""
    import numpy as np
    import pandas as pd

    if isinstance(predicted, dict):  # named tensors
        predicted = pd.DataFrame({key: list(value) for key, value in predicted.items()})
    if isinstance(predicted, pd.DataFrame):
        for row in predicted.itertuples(index=False, name=None):
            yield [serialize(value) for value in row]
        return
    if not isinstance(predicted, str) and hasattr(predicted, "__len__"):
        yield from ([serialize(value)] for value in np.asarray(predicted))
    else:
        yield [serialize(predicted)]


def serialize(value: Any) -> Any:
    """Convert a value for a CSV file; lists and arrays become JSON."""
    value = value.tolist() if hasattr(value, "tolist") else value
    return json.dumps(value) if isinstance(value, list | tuple | dict) else value
