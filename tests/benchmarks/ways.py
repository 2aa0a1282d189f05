"""The ways to score that the benchmark compares: a server, a request format and a client.

This module is imported in the environment of each peer too, so a package that only one way needs
is imported inside the function that uses it.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

JSON = "application/json"
Score = Callable[[Any], np.ndarray]


@dataclass(frozen=True)
class Form:
    """How images become a request body, and an answer becomes labels."""

    body: Callable[[np.ndarray], bytes]
    labels: Callable[[bytes], list[int]]
    content_type: str = JSON
    path: str = "/score"


@dataclass(frozen=True)
class Way:
    """A server, and a client that scores on it.

    Attributes
    ----------
    name : str
        In the JSON file; ``title`` stands in the table.
    server : str
        "tutorial", "ours", or a peer's name.
    form : Form
    client : {"sdk", "ours", "http"}
        ``service.run`` of Azure's SDK; our `call_service`; one kept connection of requests.
    batch : int or None
        Images in one request of the "http" client; None is all.
    is_documented : bool
        Whether the peer's own help or documentation names this form.
    """

    name: str
    title: str
    server: str
    form: Form
    client: str = "http"
    batch: int | None = None
    is_documented: bool = True


def tutorial_body(images: np.ndarray) -> bytes:
    return bytes(json.dumps({"data": images.tolist()}), encoding="utf8")


def fast_json(document: dict) -> bytes:
    import orjson

    return orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)


def idx_body(images: np.ndarray) -> bytes:
    from mnist_deploy.client.encoding import idx_body

    body = idx_body(0, images)
    assert body is not None, "these images are no intensities"
    return body


def parquet_body(images: np.ndarray) -> bytes:
    import pandas as pd

    buffer = io.BytesIO()
    columns = [str(column) for column in range(images.shape[1])]
    pd.DataFrame(images, columns=columns).to_parquet(buffer)
    return buffer.getvalue()


def v2_body(images: np.ndarray) -> bytes:
    """The Open Inference Protocol, whose numbers are one flat list."""
    tensor = {"name": "images", "shape": list(images.shape), "datatype": "FP64"}
    return fast_json({"inputs": [tensor | {"data": images.ravel()}]})


def labels_at(*keys: str | int) -> Callable[[bytes], list[int]]:
    """Read a JSON answer, in which the labels lie below some keys."""

    def labels(answer: bytes) -> list[int]:
        found = json.loads(answer)
        for key in keys:
            found = found[key]
        return found

    return labels


TUTORIAL = Form(tutorial_body, labels_at())
OUR_JSON = Form(lambda images: fast_json({"data": images}), labels_at())
OUR_IDX = Form(idx_body, labels_at(), "application/octet-stream")
MLFLOW_JSON = Form(
    lambda images: fast_json({"inputs": images}), labels_at("predictions"), path="/invocations"
)
MLFLOW_PARQUET = replace(
    MLFLOW_JSON, body=parquet_body, content_type="application/vnd.apache.parquet"
)
BENTOML = Form(lambda images: fast_json({"images": images}), labels_at())
MLSERVER = Form(v2_body, labels_at("outputs", 0, "data"), path="/v2/models/digits/infer")

WAYS = [
    Way("tutorial", "the tutorial's client and script", "tutorial", TUTORIAL, "sdk"),
    Way("json", "our client and script, JSON", "ours", OUR_JSON, "ours"),
    Way("idx", "our client and script, IDX", "ours", OUR_IDX, "ours"),
    Way("mlflow", "MLflow, JSON", "mlflow", MLFLOW_JSON),
    # MLflow documents JSON and CSV; Parquet is accepted but undocumented.
    Way("mlflow_parquet", "MLflow, Parquet (undocumented)", "mlflow", MLFLOW_PARQUET,
        is_documented=False),
    Way("bentoml", "BentoML, JSON", "bentoml", BENTOML),
    Way("mlserver", "MLServer, JSON", "mlserver", MLSERVER, batch=500),
    Way("fastapi", "FastAPI as one would write it, JSON", "fastapi", OUR_JSON),
]  # fmt: skip


def http_client(uri: str, form: Form, batch: int | None) -> Score:
    import requests

    session = requests.Session()
    headers = {"Content-Type": form.content_type}

    def score(images: np.ndarray) -> np.ndarray:
        labels: list[int] = []
        for start in range(0, len(images), batch or len(images)):
            body = form.body(images[start : start + (batch or len(images))])
            answer = session.post(uri, data=body, headers=headers, timeout=300)
            answer.raise_for_status()
            labels += form.labels(answer.content)
        return np.array(labels).ravel()

    return score


def service_client(way: Way, uri: str, service_name: str) -> Score:
    """The clients with the SDK's service object, as in the tutorial's notebook."""
    from azureml.core.webservice import Webservice

    from mnist_deploy import call_service, connect_workspace

    service = Webservice(connect_workspace(local=True), service_name)
    if way.client == "sdk":
        return lambda images: np.array(service.run(input_data=way.form.body(images)))
    form = "json" if way.name == "json" else "auto"
    return lambda images: call_service(service, images, format=form)


def client_of(way: Way, uri: str, service_name: str) -> Score:
    if way.client == "http":
        return http_client(uri, way.form, way.batch)
    return service_client(way, uri, service_name)


def stream_client(uri: str) -> Score:
    """Our client without the SDK, for an iterator of arrays."""
    from mnist_deploy import post_images

    return lambda pieces: post_images(uri, pieces)
