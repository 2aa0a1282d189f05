"""Encode rows as request bodies: IDX files, the tutorial's JSON, and JSON of a DataFrame."""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple

import numpy as np
import orjson

from ..data.idx import encode_idx
from .inputs import Rows, is_frame, slice_rows

Format = Literal["auto", "idx", "json", "records", "split"]

IDX, JSON = "application/octet-stream", "application/json"
FORMATS = ("auto", "idx", "json", "records", "split")
# "Troubleshoot online endpoints": 413 for a request payload above 1.5 megabytes.
MAX_BODY = 1_500_000  # bytes
IDX_NUMBERS = MAX_BODY - 1_000  # of one byte each, without the header of the file
JSON_NUMBERS = MAX_BODY // 20  # "0.00392156862745098," are 20 bytes

_BLOCK = 128  # images that are compared at the same time, so that they stay in the CPU's cache
_UINT8 = (
    "the inputs are uint8, which may be pixels from 0 to 255 or plain numbers; JSON does not "
    "distinguish them. Pass images / 255.0 for pixels, images.astype(int) for numbers."
)


class RequestBody(NamedTuple):
    start: int  # number of the first row
    rows: Rows
    content: bytes
    content_type: str


class Encoder:
    """Encodes the batches of one call.

    Parameters
    ----------
    format : {"auto", "idx", "json", "records", "split"}
    max_body : float
        In bytes. A batch whose body would be larger becomes several bodies.
    allow_nan : bool
        Whether NaN is sent, as ``null`` in JSON.
    is_idx_rejected : bool
        Whether the script has rejected IDX: "auto" then encodes JSON where that is possible.
    """

    def __init__(
        self, format: Format, *, max_body: float, allow_nan: bool, is_idx_rejected: bool
    ) -> None:
        if format not in FORMATS:
            raise ValueError(f"format is {format!r}, expected one of {', '.join(FORMATS)}.")
        self.format = format
        self.is_idx_rejected = is_idx_rejected
        self._max_body = max_body
        self._allow_nan = allow_nan
        self._rows_per_body: int | None = None  # set after a body has exceeded max_body

    def encode(self, start: int, rows: Rows, *, as_json: bool = False) -> list[RequestBody]:
        """Encode a batch as one request body, or as several that are small enough."""
        step = self._rows_per_body
        if step is None or step >= len(rows):
            content, content_type = self._encode(start, rows, as_json)
            if len(rows) == 1 or len(content) <= self._max_body:
                return [RequestBody(start, rows, content, content_type)]
            step = self._rows_per_body = max(1, int(len(rows) * self._max_body / len(content)))
        return [
            body
            for first in range(0, len(rows), step)
            for body in self.encode(
                start + first, slice_rows(rows, first, first + step), as_json=as_json
            )
        ]

    def _encode(self, start: int, rows: Rows, as_json: bool) -> tuple[bytes, str]:
        if is_frame(rows) or self.format in ("records", "split"):
            return frame_body(start, rows, self.format, self._allow_nan), JSON
        if rows.dtype.kind == "O" and self.format != "json":
            raise TypeError(f"the inputs are text, which format={self.format!r} cannot encode. "
                            "Pass format='json'.")  # fmt: skip
        skips_idx = self.is_idx_rejected and rows.dtype != np.uint8
        if as_json or self.format == "json" or (self.format == "auto" and skips_idx):
            return json_body(start, rows, self._allow_nan), JSON
        content = idx_body(start, rows, self._allow_nan)
        if content is not None:
            return content, IDX
        if self.format == "idx":
            raise ValueError(
                "format='idx' cannot encode the inputs; expected uint8 pixels or intensities in "
                "[0, 1]. Pass format='json' for other numbers."
            )
        return json_body(start, rows, self._allow_nan), JSON


def idx_body(start: int, rows: np.ndarray, allow_nan: bool = False) -> bytes | None:
    """Encode rows as the smallest exact IDX file; None if a value is outside of [0, 1].

    uint8 values are pixels from 0 to 255. Intensities that are all multiples of 1 / 255 are sent
    as uint8 pixels, others in [0, 1] as float32 or float64.
    """
    pixels = rows if rows.dtype == np.uint8 else _as_pixels(rows)
    if pixels is not None:  # and therefore finite
        return encode_idx(pixels)
    _check_finite(start, rows, allow_nan)
    if rows.min() >= 0 and rows.max() <= 1:  # false for NaN
        return encode_idx(rows if rows.dtype == np.float32 else rows.astype(np.float64))
    return None


def json_body(start: int, rows: np.ndarray, allow_nan: bool = False) -> bytes:
    """The tutorial's JSON, ``{"data": [[...], ...]}``, or ``{"data": ["text", ...]}``.

    Images are flattened. Raises ValueError for uint8, which may be pixels or plain numbers.
    """
    if rows.dtype.kind == "O":
        return _dump({"data": rows.tolist()})
    if rows.dtype == np.uint8:
        raise ValueError(_UINT8)
    _check_finite(start, rows, allow_nan)
    if rows.dtype.kind == "f":
        rows = rows.astype(np.float64)
    rows = np.ascontiguousarray(rows, rows.dtype.newbyteorder("="))
    return _dump({"data": rows.reshape(len(rows), -1)})


def frame_body(start: int, frame: Rows, format: Format, allow_nan: bool = False) -> bytes:
    """A DataFrame as ``{"data": [records]}``, or in the form of Azure's MLflow deployments."""
    if not is_frame(frame):
        raise TypeError(
            f"format={format!r} takes a pandas DataFrame, not {type(frame).__name__}. Pass a "
            "DataFrame, or another format."
        )
    if format not in ("records", "split"):
        raise TypeError(
            "the inputs are a DataFrame. Pass format='records' to send "
            "{\"data\": [{column: value}, ...]}, format='split' to send "
            '{"input_data": {"columns", "index", "data"}}, or inputs.to_numpy() to send values '
            "without column names."
        )
    columns = list(frame.columns)
    if format == "records" and not (
        len(set(columns)) == len(columns) and all(isinstance(name, str) for name in columns)
    ):
        raise ValueError(
            f"the column names are {columns[:5]}; format='records' requires unique names of type "
            "str. Rename the columns, or pass format='split'."
        )
    values = _frame_values(start, frame, allow_nan)
    if format == "records":
        return _dump({"data": [dict(zip(columns, row, strict=True)) for row in values]})
    return _dump(
        {"input_data": {"columns": columns, "index": frame.index.tolist(), "data": values}}
    )


def _frame_values(start: int, frame: Rows, allow_nan: bool) -> list[list[Any]]:
    """The rows of a DataFrame as Python objects, a missing value as None."""
    values = [frame.iloc[:, column].tolist() for column in range(frame.shape[1])]
    missing = frame.isna().to_numpy()
    rows = [list(row) for row in zip(*values, strict=True)]
    for number, row in enumerate(rows):
        for column, value in enumerate(row):
            problem = ""
            if missing[number, column]:
                row[column] = None
                problem = "" if allow_nan else "no value (NaN); allow_nan=True sends null"
            elif isinstance(value, float) and math.isinf(value):
                problem = "infinity, which JSON cannot represent"
            if problem:
                name = frame.columns[column]
                raise ValueError(f"row {start + number}, column {name!r} has {problem}.")
    return rows


def _dump(content: dict) -> bytes:
    try:
        return orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY)
    except TypeError as error:
        raise TypeError(
            f"the inputs cannot be sent as JSON: {error}. Convert them to numbers, booleans or "
            "text, or call service.run(input_data)."
        ) from error


def _check_finite(start: int, rows: np.ndarray, allow_nan: bool) -> None:
    if rows.dtype.kind != "f":
        return
    valid = ~np.isinf(rows) if allow_nan else np.isfinite(rows)
    if not valid.all():
        row = start + int(np.argmin(valid.reshape(len(rows), -1).all(axis=1)))
        advice = (
            "JSON cannot represent infinity." if allow_nan else "allow_nan=True sends NaN as null."
        )
        raise ValueError(f"row {row} holds NaN or infinity; expected finite numbers. {advice}")


def _as_pixels(rows: np.ndarray) -> np.ndarray | None:
    """Return uint8 pixels for which ``pixels / 255`` equals the rows exactly, or None."""
    pixels = np.empty(rows.shape, np.uint8)
    for start in range(0, len(rows), _BLOCK):
        block = rows[start : start + _BLOCK]
        with np.errstate(invalid="ignore", over="ignore"):
            nearest = np.rint(block * 255.0).astype(np.uint8)
        if not np.array_equal(nearest / 255.0, block):
            return None
        pixels[start : start + _BLOCK] = nearest
    return pixels
