"""Call a deployed service, through the SDK's object or by its scoring URI alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Literal
from weakref import WeakKeyDictionary

import numpy as np
import requests
from tqdm.auto import tqdm

from ..errors import (
    AuthenticationFailed,
    PayloadTooLarge,
    ScoringError,
    ScoringTimeout,
    ServiceUnavailable,
)
from ..sdk import Deadline, check_kind, reason
from .endpoint import Endpoint
from .payload import Images, batches, idx_body, json_body, read_labels

if TYPE_CHECKING:
    from azureml.core import Webservice

Batch = tuple[int, np.ndarray]  # the number of its first image, and the images
Body = tuple[bytes, str]  # and its content type
Format = Literal["auto", "idx", "json"]

TIMEOUT = 60.0  # seconds to wait for an answer
PATIENCE = 10.0  # seconds to try again while nobody answers

_IDX, _JSON = "application/octet-stream", "application/json"
# Errors that say nothing about the form in which the images were sent.
_NOT_THE_FORM = (AuthenticationFailed, PayloadTooLarge, ScoringTimeout, ServiceUnavailable)
_LONG = 1000  # images that may take so long that progress is worth a bar
# What was learnt of services: of those that were deployed or fetched, not of their addresses,
# at which another script may answer tomorrow.
_formats: WeakKeyDictionary[Webservice, Format] = WeakKeyDictionary()
_keys: WeakKeyDictionary[Webservice, str] = WeakKeyDictionary()


def call_service(
    service: Webservice,
    images: Images,
    *,
    batch_size: int | None = None,
    timeout: float = TIMEOUT,
    patience: float = PATIENCE,
    format: Format = "auto",
) -> np.ndarray:
    """Let a deployed service predict the labels of images.

    The tutorial's ``service.run(json.dumps({"data": images.tolist()}))``, for any number of
    images: they travel in batches over one connection, in the quickest form that keeps every
    bit. The key of a service with ``auth_enabled``, or the token of one on AKS with
    ``token_auth_enabled``, is fetched once, and again when it is not valid any more.

    Parameters
    ----------
    service : azureml.core.webservice.AciWebservice or AksWebservice
        A healthy service.
    images, batch_size, timeout, patience, format
        As in `post_images`; what is learnt of a script that knows no IDX is remembered.

    Returns
    -------
    ndarray, shape (n,)
        As of `post_images`.

    Raises
    ------
    ValueError, ScoringError
        As `post_images`.
    """
    check_kind("service", service, "azureml.core.Webservice", "deploy_to_aci(...)")
    uri = getattr(service, "scoring_uri", None)
    if not uri:
        raise ServiceUnavailable(
            f"the service {service.name!r} has no scoring URI, its state is {service.state}. Wait "
            "with service.wait_for_deployment(), and read service.get_logs() if it failed."
        )

    fetch_key = partial(_fetch_key, service, timeout)
    with requests.Session() as session:
        endpoint = Endpoint(session, uri, timeout=timeout, patience=patience)
        if service.auth_enabled or getattr(service, "token_auth_enabled", False):
            endpoint.use_key(_keys.get(service) or fetch_key(), renew=fetch_key)
        known = _formats.get(service, format) if format == "auto" else format
        labels, learnt = _score(endpoint, images, batch_size, known)
    if format == "auto" and learnt == "json":
        _formats[service] = learnt
    return labels


def post_images(
    scoring_uri: str,
    images: Images,
    *,
    api_key: str | None = None,
    batch_size: int | None = None,
    timeout: float = TIMEOUT,
    patience: float = PATIENCE,
    format: Format = "auto",
    headers: Mapping[str, str] | None = None,
) -> np.ndarray:
    """Let the service at a scoring URI predict the labels of images, by HTTP alone.

    The tutorial's ``requests.post(service.scoring_uri, input_data, headers=headers)``.

    Parameters
    ----------
    scoring_uri : str
    images : array-like, or iterable of array-likes
        Of shape (n, features), (n, height, width), or (features,) for one image; an iterable's
        pieces are read as they are sent. uint8 are pixels from 0 to 255; other types are the
        numbers that the model takes, for MNIST intensities in [0, 1].
    api_key : str, optional
        The primary or secondary key of a service with ``auth_enabled``.
    batch_size : int, optional
        The most images in one request; by default as many as hold 1.6 million numbers, 2,040
        images of MNIST.
    timeout : float
        Seconds to wait for the answer to a request.
    patience : float
        Seconds to go on trying while connections are refused or break, as they do when the
        service restarts. What was answered or timed out is not tried again.
    format : {"auto", "idx", "json"}
        How images travel: as IDX files, which this project's score.py takes, or as the
        tutorial's JSON. By default IDX for pixels and intensities, and JSON for other numbers
        and where the script refused IDX, which leaves a traceback in its log: "json" avoids it.
    headers : mapping of str to str, optional
        More headers of each request.

    Returns
    -------
    ndarray, shape (n,)
        The label of each image: int64, or what type the model's classes have.

    Raises
    ------
    ValueError
        The images hold no finite numbers, have another rank, or do not fit the format: uint8 of
        shape (n, features) is not sent as JSON, because it may be pixels or not.
    ScoringError
        Its subclass in `mnist_deploy.errors` says what went wrong in the service.
    """
    check_kind("scoring_uri", scoring_uri, "builtins.str", "service.scoring_uri")
    with requests.Session() as session:
        session.headers.update(headers or {})
        endpoint = Endpoint(session, scoring_uri, timeout=timeout, patience=patience)
        if api_key:
            check_kind("api_key", api_key, "builtins.str", "service.get_keys()[0]")
            endpoint.use_key(api_key)
        return _score(endpoint, images, batch_size, format)[0]


def _fetch_key(service: Webservice, timeout: float) -> str:
    deadline = Deadline(timeout)
    try:
        if service.auth_enabled:
            key = deadline.call(service.get_keys)[0]
        else:
            key = deadline.call(service.get_access_token).access_token
    except Exception as error:
        raise AuthenticationFailed(
            f"The key of the service {service.name!r} cannot be fetched: {reason(error)}"
        ) from error
    _keys[service] = key
    return key


def _score(
    endpoint: Endpoint, images: Images, batch_size: int | None, form: Format
) -> tuple[np.ndarray, Format]:
    """The labels of images, and the format that the service turned out to take."""
    if form not in ("auto", "idx", "json"):
        raise ValueError(f"format is {form!r}, expected 'auto', 'idx' or 'json'.")

    def encode(start: int, batch: np.ndarray) -> Body:
        body = None if form == "json" else idx_body(start, batch)
        if body is not None:
            return body, _IDX
        if form == "idx":
            raise ValueError("format='idx' takes uint8 pixels or intensities in [0, 1].")
        return json_body(start, batch), _JSON

    total = len(images) if isinstance(images, Sized) else None
    is_short = total is not None and total < _LONG
    labels: list[np.ndarray] = []
    bar = tqdm(desc="scoring", total=total, unit="image", delay=2, disable=is_short)
    with ThreadPoolExecutor(1) as encoder, bar:
        for (start, batch), (body, kind) in _ahead(encoder, encode, batches(images, batch_size)):
            if kind == _IDX and form == "json":  # encoded before the first was refused
                body, kind = encode(start, batch)
            try:
                answer = read_labels(endpoint.post(body, kind), len(batch))
            except ScoringError as refusal:
                is_final = kind == _JSON or form == "idx" or labels
                if is_final or isinstance(refusal, _NOT_THE_FORM):
                    raise
                body, form = _as_json(start, batch, refusal), "json"
                answer = None
            if answer is None:
                answer = read_labels(endpoint.post(body, _JSON), len(batch))
            labels.append(answer)
            bar.update(len(batch))
    return np.concatenate(labels) if labels else np.empty(0, int), form


def _as_json(start: int, batch: np.ndarray, refusal: ScoringError) -> bytes:
    """What was refused as IDX, once more; the refusal where nobody can tell what it is as JSON."""
    try:
        return json_body(start, batch)
    except ValueError as error:
        told = f"{refusal} It was not sent again as JSON: {error}"
        raise type(refusal)(told, status=refusal.status) from None


def _ahead(
    thread: ThreadPoolExecutor, encode: Callable[..., Body], cut: Iterable[Batch]
) -> Iterator[tuple[Batch, Body]]:
    """Give each batch with its body; while that is sent, a thread encodes the next."""
    present = None
    for batch in cut:  # in the caller's own thread, as an iterable of theirs may expect
        if present is None:
            present = batch, encode(*batch)
        else:
            coming = thread.submit(encode, *batch)
            yield present
            present = batch, coming.result()
    if present is not None:
        yield present
