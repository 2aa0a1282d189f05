"""Check the inputs that a caller passes, and cut them into batches.

Rows are a NumPy array (numbers, booleans, or objects that are all str) or a pandas DataFrame.
`encoding` converts rows to request bodies.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

Rows: TypeAlias = Any  # an array or a DataFrame
Inputs: TypeAlias = ArrayLike | Iterable[Rows]

_ADVICE = "For any other request body call service.run(input_data)."


def cut_batches(inputs: Inputs, size: int | None, max_numbers: int) -> Iterator[tuple[int, Rows]]:
    """Cut inputs into batches, each with the number of its first row.

    A batch has at most `size` rows, or as many as hold `max_numbers` numbers. The elements of an
    iterable are joined or split, and released after their batch.
    """
    if size is not None and size < 1:
        raise ValueError(f"batch_size is {size}, expected 1 or more.")
    pending: list[Rows] = []
    count, sent, kind = 0, 0, None
    for piece in _pieces(inputs):
        limit = size or max(1, max_numbers // max(1, math.prod(piece.shape[1:])))
        for start in range(0, len(piece), limit):
            rows = slice_rows(piece, start, start + limit)
            rows_kind = type(rows), getattr(rows, "dtype", None), rows.shape[1:]
            if pending and (count + len(rows) > limit or kind != rows_kind):
                yield sent, _joined(pending)
                sent += count
                pending, count = [], 0
            kind = rows_kind
            pending.append(rows)
            count += len(rows)
    if pending:
        yield sent, _joined(pending)


def is_frame(value: object) -> bool:
    """Whether a value is a pandas DataFrame; pandas is not imported for that."""
    pandas = sys.modules.get("pandas")
    return pandas is not None and isinstance(value, pandas.DataFrame)


def slice_rows(rows: Rows, start: int, stop: int) -> Rows:
    return rows.iloc[start:stop] if is_frame(rows) else rows[start:stop]


def _pieces(inputs: Inputs) -> Iterator[Rows]:
    if is_frame(inputs):
        yield inputs
    elif isinstance(inputs, (str, bytes, Mapping)) or hasattr(inputs, "nnz"):
        raise _type_error(inputs)
    elif isinstance(inputs, Sequence) or hasattr(inputs, "__array__"):
        yield _as_rows(inputs)
    elif isinstance(inputs, Iterable):
        yield from (piece if is_frame(piece) else _as_rows(piece) for piece in inputs)
    else:
        raise _type_error(inputs)


def _as_rows(value: Any) -> np.ndarray:
    """Return an array with one row for each input: of numbers, of booleans, or of str objects."""
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError("the inputs are a masked array; pass inputs.filled(value) instead.")
    if hasattr(value, "nnz"):
        raise _type_error(value)
    try:
        array = np.asarray(value, dtype=object if _begins_with_text(value) else None)
    except ValueError as error:
        raise ValueError(f"the rows of the inputs differ in length: {error}") from error
    if array.dtype.kind == "U" and not isinstance(value, np.ndarray):
        raise TypeError(f"the inputs mix text with other types. {_FRAME_ADVICE} {_ADVICE}")
    is_text = array.dtype.kind == "U" or (
        array.dtype.kind == "O" and array.size and all(isinstance(each, str) for each in array.flat)
    )
    if is_text:
        return _as_text_rows(array.astype(object))
    if array.dtype.kind not in "buif":
        mixed = f"{_FRAME_ADVICE} " if array.dtype.kind == "O" and array.ndim else ""
        raise TypeError(
            f"the inputs hold {array.dtype}; expected numbers, booleans or text. {mixed}{_ADVICE}"
        )
    if array.ndim == 1:
        array = array.reshape(1 if array.size else 0, -1 if array.size else 0)
    if array.ndim not in (2, 3):
        raise ValueError(
            f"the inputs have shape {array.shape}; expected (n, features), (n, height, width), "
            "or (features,) for one row."
        )
    return array


_FRAME_ADVICE = "Pass a DataFrame and format='records' for columns of several types."


def _begins_with_text(value: Any) -> bool:
    """Whether the first element is a str: an array of "U" would widen all to the longest text."""
    while isinstance(value, (list, tuple)) and value:
        value = value[0]
    return isinstance(value, str)


def _as_text_rows(array: np.ndarray) -> np.ndarray:
    if array.ndim == 0:  # one text, as a piece of an iterable
        return array.reshape(1)
    if array.ndim > 2:
        raise ValueError(f"the text has shape {array.shape}; expected (n,) or (n, columns).")
    return array


def _type_error(inputs: object) -> TypeError:
    if hasattr(inputs, "nnz"):
        found, advice = "a sparse matrix", "Pass inputs.toarray()."
    elif isinstance(inputs, (str, bytes)):
        found, advice = f"one {type(inputs).__name__}", "Pass a list of texts for one row each."
    else:
        found, advice = f"of type {type(inputs).__name__}", "Pass an array, a list or a DataFrame."
    return TypeError(f"the inputs are {found}. {advice} {_ADVICE}")


def _joined(parts: list[Rows]) -> Rows:
    if len(parts) == 1:
        return parts[0]
    if is_frame(parts[0]):
        return sys.modules["pandas"].concat(parts)
    return np.concatenate(parts)
