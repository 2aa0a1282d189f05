"""Call a deployed service, through the SDK's object or by its scoring URI alone."""

from __future__ import annotations

from collections.abc import Sized
from typing import TYPE_CHECKING
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
from .endpoint import Endpoint
from .payload import Images, batches, idx_body, json_body, read_labels

if TYPE_CHECKING:
    from azureml.core.webservice import AciWebservice

TIMEOUT = 60.0  # seconds to wait for an answer
PATIENCE = 10.0  # seconds to try again while nobody answers

# Errors that say nothing about the form in which the images were sent.
_NOT_THE_FORM = (AuthenticationFailed, PayloadTooLarge, ScoringTimeout, ServiceUnavailable)
_LONG = 1000  # images that may take so long that progress is worth a bar
_speak_only_json: set[str] = set()  # scoring URIs of services that refused IDX and took JSON
_keys: WeakKeyDictionary[AciWebservice, str] = WeakKeyDictionary()


def call_service(
    service: AciWebservice,
    images: Images,
    *,
    batch_size: int | None = None,
    timeout: float = TIMEOUT,
    patience: float = PATIENCE,
) -> np.ndarray:
    """Let a deployed service predict the labels of images.

    The tutorial's ``service.run(json.dumps({"data": images.tolist()}))``, for any number of
    images: they travel in batches over one connection, in the quickest form that keeps every
    bit (IDX, or JSON where the service knows no other). The key of a service with
    ``auth_enabled`` is fetched once, and again after it was regenerated.

    Parameters
    ----------
    service : azureml.core.webservice.AciWebservice
        A healthy service.
    images, batch_size, timeout, patience
        As in `post_images`.

    Returns
    -------
    ndarray, shape (n,)
        The label of each image: int64, or what type the model's classes have.

    Raises
    ------
    ValueError
        The images hold no finite numbers, or have another rank.
    ScoringError
        Its subclass in `mnist_deploy.errors` says what went wrong in the service.
    """
    uri = getattr(service, "scoring_uri", None)
    if not uri:
        raise ServiceUnavailable(
            f"the service {service.name!r} has no scoring URI, its state is {service.state}. Wait "
            "with service.wait_for_deployment(), and read service.get_logs() if it failed."
        )

    def fetch_key() -> str:
        _keys[service] = service.get_keys()[0]
        return _keys[service]

    with open_session() as session:
        endpoint = Endpoint(session, uri, timeout=timeout, patience=patience)
        if service.auth_enabled:
            endpoint.use_key(_keys.get(service) or fetch_key(), renew=fetch_key)
        return _score(endpoint, images, batch_size)


def post_images(
    scoring_uri: str,
    images: Images,
    *,
    api_key: str | None = None,
    batch_size: int | None = None,
    timeout: float = TIMEOUT,
    patience: float = PATIENCE,
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
        The most images in one request; by default as many as hold three million numbers,
        3,826 images of MNIST.
    timeout : float
        Seconds to wait for the answer to a request.
    patience : float
        Seconds to go on trying while connections are refused or break, as they do when the
        service restarts. What was answered or timed out is not tried again.

    Returns
    -------
    ndarray, shape (n,)
        The label of each image: int64, or what type the model's classes have.

    Raises
    ------
    ValueError
        The images hold no finite numbers, or have another rank.
    ScoringError
        Its subclass in `mnist_deploy.errors` says what went wrong in the service.
    """
    with open_session() as session:
        endpoint = Endpoint(session, scoring_uri, timeout=timeout, patience=patience)
        if api_key:
            endpoint.use_key(api_key)
        return _score(endpoint, images, batch_size)


def open_session() -> requests.Session:
    """The session that a call sends all its requests through, over a connection kept open."""
    return requests.Session()


def _score(endpoint: Endpoint, images: Images, batch_size: int | None) -> np.ndarray:
    total = len(images) if isinstance(images, Sized) else None
    is_short = total is not None and total < _LONG
    labels: list[np.ndarray] = []
    with tqdm(desc="scoring", total=total, unit="image", delay=2, disable=is_short) as progress:
        for batch in batches(images, batch_size):
            labels.append(_score_batch(endpoint, batch, took_idx=bool(labels)))
            progress.update(len(batch))
    return np.concatenate(labels) if labels else np.empty(0, int)


def _score_batch(endpoint: Endpoint, batch: np.ndarray, *, took_idx: bool) -> np.ndarray:
    """Send a batch as IDX if it fits, and as JSON if it does not or the service knows no IDX."""
    body = None if endpoint.uri in _speak_only_json else idx_body(batch)
    if body is not None:
        try:
            return read_labels(endpoint.post(body, "application/octet-stream"), len(batch))
        except ScoringError as refusal:
            if took_idx or isinstance(refusal, _NOT_THE_FORM):
                raise
    labels = read_labels(endpoint.post(json_body(batch), "application/json"), len(batch))
    if body is not None:
        _speak_only_json.add(endpoint.uri)
    return labels
