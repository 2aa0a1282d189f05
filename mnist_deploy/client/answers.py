"""Parse the result of a scoring script: one label, number or list of values for each row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import orjson

from ..errors import ScoringError

_ADVICE = "Check what run() returns in the scoring script, or call service.run(input_data)."


def read_labels(content: bytes, count: int) -> np.ndarray:
    """Read the JSON list of a response, or a JSON string that holds one.

    Returns an array of shape (count,), or (count, k) if each item is a list of k values. Items
    of several JSON types give an array of objects.
    """
    try:
        labels = orjson.loads(content)
        if isinstance(labels, str):  # the 2019 edition's script returns json.dumps(...)
            labels = orjson.loads(labels)
    except orjson.JSONDecodeError:
        labels = None
    if not isinstance(labels, list):
        raise ScoringError(
            f"the service responded with {excerpt(content)}; expected a JSON list with one item "
            f"for each row. {_ADVICE}"
        )
    if len(labels) != count:
        raise ScoringError(
            f"the service responded with {len(labels)} items for {count} rows; expected one item "
            f"for each row. {_ADVICE}"
        )
    if not any(isinstance(label, list) for label in labels):
        return _as_array(labels)
    widths = {len(label) if isinstance(label, list) else None for label in labels}
    values = [value for label in labels if isinstance(label, list) for value in label]
    if len(widths) > 1 or any(isinstance(value, list) for value in values):
        raise ScoringError(
            f"the service responded with {excerpt(content)}; expected rows of one length. {_ADVICE}"
        )
    return _as_array(values).reshape(count, -1)


def join_labels(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Concatenate the labels of several requests; types that differ are kept as objects."""
    if not parts:
        return np.empty(0, int)
    if len({part.shape[1:] for part in parts}) > 1:
        raise ScoringError(
            f"the service responded with rows of shape {parts[0].shape[1:]} to one request and of "
            f"another shape to a later one. {_ADVICE}"
        )
    kinds = {part.dtype.kind for part in parts}
    if len(kinds) > 1 and not kinds <= set("iuf"):
        parts = [part.astype(object) for part in parts]
    return np.concatenate(parts)


def excerpt(content: bytes) -> str:
    """The beginning of a response, short enough for an error message."""
    text = content[:400].decode("utf-8", "replace").strip()
    return repr(text[:200] + ("..." if len(text) > 200 else "")) if text else "nothing"


def _as_array(values: list[Any]) -> np.ndarray:
    """Return an array of the values' common type; int with float is float64, other mixes object."""
    types = {type(value) for value in values}
    if types <= {int, float} or types in ({str}, {bool}):
        return np.array(values, dtype=None if values else int)
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array
