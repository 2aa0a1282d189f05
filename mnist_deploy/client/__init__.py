"""Call a deployed service, through the SDK's object or by its scoring URI alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
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
from ..sdk import Deadline, check_kind, reason
from .answers import join_labels, read_labels
from .connection import ScoringConnection
from .encoding import IDX, IDX_NUMBERS, JSON_NUMBERS, MAX_BODY, Encoder, Format, RequestBody
from .inputs import Inputs, Rows, cut_batches

if TYPE_CHECKING:
    from azureml.core import Webservice

TIMEOUT = 60.0  # seconds to wait for a response
RETRY_TIMEOUT = 10.0  # seconds to retry without a connection, or after a 429

# Errors after which the request is not sent in another format.
_UNRELATED_TO_FORMAT = (AuthenticationFailed, PayloadTooLarge, ScoringTimeout, ServiceUnavailable)
_PROGRESS_ROWS = 1000  # rows that may take long enough for a progress bar
# Whether a script has rejected IDX and accepted JSON, by the SDK's object of a service (calls of
# call_service) or by scoring URI and deployment (calls of post_images).
_json_services: WeakKeyDictionary[Webservice, bool] = WeakKeyDictionary()
_json_deployments: dict[tuple[str, str | None], bool] = {}
_keys: WeakKeyDictionary[Webservice, str] = WeakKeyDictionary()
_DEPLOYMENT_HEADER = "azureml-model-deployment"  # names the deployment that is to respond


def call_service(
    service: Webservice,
    inputs: Inputs,
    *,
    batch_size: int | None = None,
    timeout: float = TIMEOUT,
    retry_timeout: float = RETRY_TIMEOUT,
    format: Format = "auto",
    allow_nan: bool = False,
) -> np.ndarray:
    """Predict the labels of inputs with a deployed service.

    The tutorial's ``service.run(json.dumps({"data": images.tolist()}))``, for any number of
    inputs: they are sent in batches over one connection, without loss of precision. The key of a
    service with ``auth_enabled``, or the token of one on AKS with ``token_auth_enabled``, is
    fetched once, and again when the service rejects it.

    Parameters
    ----------
    service : azureml.core.webservice.AciWebservice or AksWebservice
        A healthy service.
    inputs, batch_size, timeout, retry_timeout, format, allow_nan
        As in `post_images`. The rejection of IDX by a script is cached for this object.

    Returns
    -------
    ndarray, shape (n,) or (n, k)
        See `post_images`.

    Raises
    ------
    TypeError, ValueError, ScoringError
        See `post_images`.
    """
    check_kind("service", service, "azureml.core.Webservice", "deploy_to_aci(...)")
    uri = getattr(service, "scoring_uri", None)
    if not uri:
        raise ServiceUnavailable(
            f"the service {service.name!r} has no scoring URI, its state is {service.state}. Wait "
            "with service.wait_for_deployment(), and read service.get_logs() if it failed."
        )

    fetch_key = partial(_fetch_key, service, timeout)
    is_idx_rejected = _json_services.get(service, False)
    with requests.Session() as session:
        connection = ScoringConnection(session, uri, timeout=timeout, retry_timeout=retry_timeout)
        if service.auth_enabled or getattr(service, "token_auth_enabled", False):
            connection.use_key(_keys.get(service) or fetch_key(), renew=fetch_key)
        encoder = _build_encoder(format, batch_size, allow_nan, is_idx_rejected)
        labels = _score(connection, encoder, inputs, batch_size)
    _json_services[service] = encoder.is_idx_rejected
    return labels


def post_images(
    scoring_uri: str,
    images: Inputs,
    *,
    api_key: str | None = None,
    batch_size: int | None = None,
    timeout: float = TIMEOUT,
    retry_timeout: float = RETRY_TIMEOUT,
    format: Format = "auto",
    allow_nan: bool = False,
    headers: Mapping[str, str] | None = None,
) -> np.ndarray:
    """Predict the labels of images with the service at a scoring URI, by HTTP alone.

    The tutorial's ``requests.post(service.scoring_uri, input_data, headers=headers)``.

    Parameters
    ----------
    scoring_uri : str
    images : array-like, DataFrame, or iterable of arrays or DataFrames
        Numbers or booleans of shape (n, features), (n, height, width), or (features,) for one
        row; a list of texts with ``format="json"``; a DataFrame with ``format="records"`` or
        ``"split"``. An iterable is read while its arrays are sent. Values of dtype uint8 are
        pixels from 0 to 255; the model receives other values unchanged, for MNIST intensities
        in [0, 1].
    api_key : str, optional
        The primary or secondary key of a service with ``auth_enabled``.
    batch_size : int, optional
        The maximum number of rows in one request. By default a request body stays below
        1.5 MB, the maximum that Microsoft documents for managed online endpoints: 1,911 images
        of MNIST as pixels, about 150 as JSON.
    timeout : float
        Seconds to wait for the response to a request.
    retry_timeout : float
        Seconds to retry with exponential backoff while the connection is refused or breaks, as
        during a restart of the service, or while the service responds with 429 (too many
        requests). A request that timed out is not sent again.
    format : {"auto", "idx", "json", "records", "split"}
        "idx" sends IDX files, which this project's score.py takes, "json" the tutorial's
        ``{"data": [[...], ...]}``. "auto" sends pixels and intensities as IDX, and other numbers
        as JSON. If the script rejects IDX, which leaves a traceback in its log, the batch is
        sent again as JSON, and the process sends no further IDX to that URI and deployment.
        "records" sends the rows of a DataFrame as ``{"data": [{column: value}, ...]}``, "split"
        as ``{"input_data": {"columns": [...], "index": [...], "data": [...]}}``, which Azure's
        MLflow deployments take.
    allow_nan : bool
        Whether NaN and missing values are sent, as ``null`` in JSON.
    headers : mapping of str to str, optional
        Additional headers of each request.

    Returns
    -------
    ndarray, shape (n,) or (n, k)
        The result of the script for each row: a label, a number, or k values. The dtype is that
        of the JSON values; object if their types differ.

    Raises
    ------
    TypeError
        No format can encode the type of the inputs, or a DataFrame needs a `format`.
    ValueError
        The inputs hold NaN or infinity, have another rank, or do not fit the format: uint8 is
        not sent as JSON, because it may be pixels or plain numbers.
    ScoringError
        The call failed; the subclass, see `mnist_deploy.errors`, names the kind of failure.
    """
    check_kind("scoring_uri", scoring_uri, "builtins.str", "service.scoring_uri")
    deployment = scoring_uri, (headers or {}).get(_DEPLOYMENT_HEADER)
    with requests.Session() as session:
        session.headers.update(headers or {})
        connection = ScoringConnection(
            session, scoring_uri, timeout=timeout, retry_timeout=retry_timeout
        )
        if api_key:
            check_kind("api_key", api_key, "builtins.str", "service.get_keys()[0]")
            connection.use_key(api_key)
        encoder = _build_encoder(
            format, batch_size, allow_nan, _json_deployments.get(deployment, False)
        )
        labels = _score(connection, encoder, images, batch_size)
    _json_deployments[deployment] = encoder.is_idx_rejected
    return labels


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


def _build_encoder(
    format: Format, batch_size: int | None, allow_nan: bool, is_idx_rejected: bool
) -> Encoder:
    max_body = MAX_BODY if batch_size is None else float("inf")
    return Encoder(format, max_body=max_body, allow_nan=allow_nan, is_idx_rejected=is_idx_rejected)


def _score(
    connection: ScoringConnection, encoder: Encoder, inputs: Inputs, batch_size: int | None
) -> np.ndarray:
    total = _count_rows(inputs)
    is_short = total is not None and total < _PROGRESS_ROWS
    max_numbers = IDX_NUMBERS if encoder.format in ("auto", "idx") else JSON_NUMBERS
    batches = cut_batches(inputs, batch_size, max_numbers)
    labels: list[np.ndarray] = []
    bar = tqdm(desc="scoring", total=total, unit="row", delay=2, disable=is_short)
    with ThreadPoolExecutor(1, "mnist_deploy-encoder") as thread, bar:
        for bodies in _encode_ahead(thread, encoder.encode, batches):
            for body in bodies:
                labels += _send(connection, encoder, body, is_first=not labels)
                bar.update(len(body.rows))
    return join_labels(labels)


def _count_rows(inputs: Inputs) -> int | None:
    """The length of the inputs; None for an iterator, or a type that is rejected later."""
    try:
        return len(inputs)  # type: ignore[arg-type]
    except TypeError:
        return None


def _send(
    connection: ScoringConnection, encoder: Encoder, body: RequestBody, *, is_first: bool
) -> list[np.ndarray]:
    """Score one body; if the script rejects IDX in the first body, score its rows as JSON."""
    if body.content_type == IDX and not is_first and encoder.is_idx_rejected:
        return _send_as_json(connection, encoder, body)  # it was encoded before the rejection
    try:
        labels = _post(connection, body)
    except ScoringError as error:
        can_fall_back = is_first and encoder.format == "auto" and body.content_type == IDX
        if not can_fall_back or isinstance(error, _UNRELATED_TO_FORMAT):
            raise
        rejection = error
    else:
        if body.content_type == IDX:  # the script that rejected IDX was replaced
            encoder.is_idx_rejected = False
        return [labels]
    encoder.is_idx_rejected = True
    try:
        return _send_as_json(connection, encoder, body)
    except ValueError as error:
        message = f"{rejection} The batch was not sent again as JSON: {error}"
        raise type(rejection)(message, status=rejection.status) from None


def _send_as_json(
    connection: ScoringConnection, encoder: Encoder, body: RequestBody
) -> list[np.ndarray]:
    return [_post(connection, each) for each in encoder.encode(body.start, body.rows, as_json=True)]


def _post(connection: ScoringConnection, body: RequestBody) -> np.ndarray:
    return read_labels(connection.post(body.content, body.content_type), len(body.rows))


def _encode_ahead(
    thread: ThreadPoolExecutor,
    encode: Callable[[int, Rows], list[RequestBody]],
    batches: Iterable[tuple[int, Rows]],
) -> Iterator[list[RequestBody]]:
    """Yield the bodies of each batch; while they are sent, a thread encodes the next batch."""
    bodies = None
    for batch in batches:  # iterated in the caller's thread: inputs may not be thread-safe
        if bodies is None:
            bodies = encode(*batch)
        else:
            next_bodies = thread.submit(encode, *batch)
            yield bodies
            bodies = next_bodies.result()
    if bodies is not None:
        yield bodies
