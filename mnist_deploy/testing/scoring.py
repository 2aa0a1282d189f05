"""What a mocked service answers to a request: labels, a refusal, or nothing at all."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from http import HTTPStatus
from itertools import islice
from typing import Any

import numpy as np
import orjson
import requests

from mnist_deploy.data.idx import decode_idx
from mnist_deploy.errors import DataError

Answer = Callable[[np.ndarray], Any]  # images (n, features) in, labels out


@dataclass(frozen=True)
class ScoringRequest:
    """One request that reached a mocked service.

    Attributes
    ----------
    service : str
        Its name.
    body : bytes
        As it was sent.
    images : ndarray of float64, shape (n, features), or None
        What the body holds, pixels divided by 255; None if it was refused unread.
    status : int or None
        Of the answer; None if there was none.
    """

    service: str
    body: bytes = field(repr=False)
    images: np.ndarray | None = field(repr=False)
    status: int | None


class Refused(Exception):
    """The service answers with another status than 200."""

    def __init__(self, status: int, message: str = "") -> None:
        super().__init__(message or HTTPStatus(status).phrase)
        self.status = status


def as_answer(source: Any) -> Answer:
    """What answers for a service: a model, a function of the images, or labels in their order."""
    if hasattr(source, "predict"):
        return source.predict
    return source if callable(source) else _hand_out(source)


def _hand_out(source: Iterable[Any]) -> Answer:
    labels = list(source)
    left = iter(labels)

    def answer(images: np.ndarray) -> list[Any]:
        given = list(islice(left, len(images)))
        if len(given) < len(images):
            raise AssertionError(
                f"answer_with was given {len(labels)} labels, and more images were sent."
            )
        return given

    return answer


def refusing(status: int, message: str = "") -> Answer:
    """A service that refuses whatever it is sent."""

    def answer(images: np.ndarray) -> Any:
        raise Refused(status, message)

    return answer


def silent(images: np.ndarray) -> Any:
    """A service that lets its caller's patience run out, which here takes no time."""
    raise requests.ReadTimeout("the mocked service does not answer")


def unreachable(images: np.ndarray) -> Any:
    """A service whose machine is gone."""
    raise requests.ConnectionError("nobody listens at the mocked service's address")


def read_images(body: bytes) -> np.ndarray:
    """The images of a request, in either form that score.py takes: (n, features) in float64."""
    try:
        plain = gzip.decompress(body) if body.startswith(b"\x1f\x8b") else body
        if not plain.startswith(b"\0\0"):
            return np.asarray(orjson.loads(plain)["data"], dtype=np.float64)
        images = decode_idx(plain)
        return images.reshape(len(images), -1) / (255.0 if images.dtype == np.uint8 else 1.0)
    except (DataError, OSError, EOFError, ValueError, TypeError, KeyError) as error:
        raise Refused(400, f"the body holds no images: {error!r}.") from error
