"""What travels between a client and a scoring service: images as request bodies, labels back.

Bytes and arrays only; how they are sent is the business of `client`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import orjson
from numpy.typing import ArrayLike

from ..data.idx import encode_idx
from ..errors import ScoringError

Images = ArrayLike | Iterable[ArrayLike]

BATCH_NUMBERS = 1_600_000  # in one batch: 2,040 images of MNIST, 1.6 MB of pixels, 30 MB of JSON
_BLOCK = 128  # images compared at once, so that they stay in the CPU's cache


def batches(images: Images, size: int | None = None) -> Iterator[tuple[int, np.ndarray]]:
    """Cut images into batches of at most ``size``, each with the number of its first image.

    The pieces of an iterable are put together or cut as needed, and none is held longer than
    that. What is not numeric, or of another rank, is a ValueError.
    """
    if size is not None and size < 1:
        raise ValueError(f"batch_size is {size}, expected 1 or more.")
    pending: list[np.ndarray] = []
    count, sent, form = 0, 0, None
    for piece in _pieces(images):
        most = size or max(1, BATCH_NUMBERS // max(1, math.prod(piece.shape[1:])))
        for start in range(0, len(piece), most):
            part = piece[start : start + most]
            if pending and (count + len(part) > most or form != (part.dtype, part.shape[1:])):
                yield sent, _joined(pending)
                sent += count
                pending, count = [], 0
            form = part.dtype, part.shape[1:]
            pending.append(part)
            count += len(part)
    if pending:
        yield sent, _joined(pending)


def idx_body(start: int, batch: np.ndarray) -> bytes | None:
    """The smallest IDX file that holds a batch exactly; None if the numbers are no intensities.

    uint8 are pixels from 0 to 255 and travel as they are; so do intensities that are each
    exactly k / 255. Others in [0, 1] travel as float32 or float64; NaN is a ValueError.
    """
    pixels = batch if batch.dtype == np.uint8 else _as_pixels(batch)
    if pixels is not None:  # and so finite
        return encode_idx(pixels)
    _check_finite(start, batch)
    if batch.min() >= 0 and batch.max() <= 1:
        return encode_idx(batch if batch.dtype == np.float32 else batch.astype(np.float64))
    return None


def json_body(start: int, batch: np.ndarray) -> bytes:
    """The tutorial's JSON, ``{"data": [[...], ...]}``; the pixels of images become intensities.

    NaN is a ValueError, and so is a table of uint8: nobody can tell whether it holds pixels.
    """
    if batch.dtype != np.uint8:
        _check_finite(start, batch)
        batch = batch.astype(np.float64)
    elif batch.ndim == 3:
        batch = batch / 255.0
    else:
        raise ValueError(
            "a table of uint8 may hold pixels or plain numbers, and this service takes JSON, where "
            "that makes a difference. Pass images / 255.0 for pixels, images.astype(float) for "
            "numbers."
        )
    rows = np.ascontiguousarray(batch).reshape(len(batch), -1)
    return orjson.dumps({"data": rows}, option=orjson.OPT_SERIALIZE_NUMPY)


def read_labels(answer: bytes, count: int) -> np.ndarray:
    """Read the labels that a service answered: a JSON list, or a JSON string of one."""
    try:
        labels = orjson.loads(answer)
        if isinstance(labels, str):  # the script of 2019 encodes its list itself
            labels = orjson.loads(labels)
    except orjson.JSONDecodeError:
        labels = None
    types = {type(label) for label in labels} if isinstance(labels, list) else set()
    if not isinstance(labels, list) or len(types) > 1 or not types <= {int, float, str, bool}:
        raise ScoringError(
            f"the service answered {excerpt(answer)}; expected a JSON list with a label for each "
            "image. Look at what run() returns in its scoring script."
        )
    if len(labels) != count:
        raise ScoringError(
            f"the service answered {len(labels)} labels for {count} images; expected one each. "
            "Look at what run() returns in its scoring script."
        )
    return np.array(labels, dtype=None if labels else int)


def excerpt(answer: bytes) -> str:
    """The beginning of an answer, short enough for an error message."""
    text = answer[:400].decode("utf-8", "replace").strip()
    return repr(text[:200] + ("..." if len(text) > 200 else "")) if text else "nothing"


def _pieces(images: Images) -> Iterator[np.ndarray]:
    if isinstance(images, Sequence) or hasattr(images, "__array__"):
        yield _as_rows(images)
    elif isinstance(images, Iterable):
        yield from map(_as_rows, images)
    else:
        raise ValueError(f"the images are {type(images).__name__}, expected arrays of numbers.")


def _as_rows(images: object) -> np.ndarray:
    try:
        array = np.asarray(images)
    except ValueError as error:
        raise ValueError(f"the images are not of one length: {error}") from error
    if array.dtype.kind not in "buif":
        raise ValueError(f"the images hold {array.dtype}, expected numbers.")
    if array.ndim == 1:
        array = array.reshape(1 if array.size else 0, -1 if array.size else 0)
    if array.ndim not in (2, 3):
        raise ValueError(
            f"the images have shape {array.shape}, expected (n, features), (n, height, width), "
            "or (features,) for one image."
        )
    return array


def _joined(parts: list[np.ndarray]) -> np.ndarray:
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _check_finite(start: int, batch: np.ndarray) -> None:
    finite = np.isfinite(batch)
    if not finite.all():
        row = start + int(np.argmin(finite.reshape(len(batch), -1).all(axis=1)))
        raise ValueError(f"image {row} holds NaN or infinity, expected finite numbers.")


def _as_pixels(batch: np.ndarray) -> np.ndarray | None:
    """The uint8 pixels whose 255th parts the batch holds exactly, or None."""
    pixels = np.empty(batch.shape, np.uint8)
    for start in range(0, len(batch), _BLOCK):
        block = batch[start : start + _BLOCK]
        with np.errstate(invalid="ignore", over="ignore"):
            nearest = np.rint(block * 255.0).astype(np.uint8)
        if not np.array_equal(nearest / 255.0, block):
            return None
        pixels[start : start + _BLOCK] = nearest
    return pixels
