"""How the services of a mocked workspace are scored: from a request to its answer."""

from __future__ import annotations

import gzip
import io
import traceback
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

import joblib
import numpy as np
import orjson
import requests

from mnist_deploy.data.idx import decode_idx
from mnist_deploy.errors import DataError

from .cloud import Answer, Refused, ScoringRequest, ScriptRaised, ScriptRefused, Silent
from .network import ENDPOINT_HOST, SCORING_HOST, Answered
from .services import ControlPlane, MockedService

DEPLOYMENT = "azureml-model-deployment"  # header of endpoints: which is meant, which answered


class Scoring:
    """Answers in the place of services, as the test has said."""

    def __init__(self, plane: ControlPlane) -> None:
        self.plane, self.cloud, self.said = plane, plane.cloud, plane.said

    def answer(
        self, request: requests.PreparedRequest, body: bytes, patience: float | None
    ) -> Answered:
        """Answer a request, whose sender waits for it so many seconds."""
        service = self._behind(request)
        deployment = service.name.partition("/")[2]  # of an endpoint of SDK v2, ENDPOINT/NAME
        headers = {"Content-Type": "application/json"}
        if deployment:
            headers[DEPLOYMENT] = deployment
        images: np.ndarray | None = None
        status: int | None = None
        said: Any = None
        try:
            self._take_time(self.said.delay_of(service.name), patience)
            admit(service, str(request.headers.get("Authorization", "")))
            images = read_images(body)
            status, said = 200, self._predict(service, images)
        except Silent:
            self._take_time(float("inf"), patience)
        except Refused as refusal:
            status, said = refusal.status, {"message": str(refusal)}
            if isinstance(refusal, ScriptRaised):
                service.log("".join(traceback.format_exception(refusal.__cause__)))
            if deployment and isinstance(refusal, ScriptRefused):  # which an endpoint hides
                headers["ms-azureml-model-error-statuscode"], status = str(status), 424
        finally:
            self.cloud.requests.append(ScoringRequest(service.name, body, images, status))
        return status or 500, orjson.dumps(said), headers

    def _behind(self, request: requests.PreparedRequest) -> MockedService:
        """What a request reaches."""
        host = urlsplit(request.url or "").hostname or ""
        name, _, rest = host.partition(".")
        if f".{rest}" == ENDPOINT_HOST and name in self.plane.endpoints:
            return self.plane.endpoints[name].choose(request.headers.get(DEPLOYMENT))
        service = self.plane.services.get(name) if f".{rest}" == SCORING_HOST else None
        if service is None or service.state != "Healthy":
            raise requests.ConnectionError(f"nobody answers at {host}", request=request)
        return service

    def _take_time(self, seconds: float, patience: float | None) -> None:
        if patience is None and seconds == float("inf"):
            raise self.said.note(
                AssertionError("This request has no time-out: it would wait for ever.")
            )
        if patience is not None and seconds > patience:
            self.cloud.clock.sleep(patience)
            raise requests.ReadTimeout("the mocked service does not answer in time")
        self.cloud.clock.sleep(seconds)

    def _predict(self, service: MockedService, images: np.ndarray) -> Any:
        answer = self.said.answer_of(service.name)
        try:
            labels = (answer or self._predict_of(service))(images)
            return np.asarray(labels).tolist()
        except (Refused, Silent, requests.RequestException):
            raise
        except AssertionError as error:  # a check of the test's, within the answer
            self.said.note(error)
            raise
        except Exception as error:
            raise ScriptRaised from (self.said.note(error) if answer else error)

    def _predict_of(self, service: MockedService) -> Answer:
        """The ``predict`` of the model that a service was deployed with."""
        for model in service.models:
            for file in self.plane.files_of(model):
                if file.endswith((".pkl", ".pickle", ".joblib")):
                    return _predict(_load(self.plane.artifacts.contents[file]))
        raise AssertionError(
            f"The service {service.name} has no pickled model to answer from: say what it "
            "answers with mocked_workspace.cloud.answer_with(...)."
        )


def admit(service: MockedService, authorization: str) -> None:
    """Refuse a request where nobody answers it, or without a key or token that is asked for."""
    if service.state == "Absent":
        raise Refused(404, f"There is no deployment {service.name}, or none gets traffic.")
    if service.state != "Healthy":
        raise Refused(502, f"The deployment {service.name} is {service.state}.")
    accepted = service.tokens if service.asks_for == "token" else service.keys.values()
    scheme, _, offered = authorization.partition(" ")
    if service.asks_for and (scheme.lower() != "bearer" or offered not in accepted):
        raise Refused(401, f"This service asks for a {service.asks_for}.")


def read_images(body: bytes) -> np.ndarray:
    """The images of a request, in either form that score.py takes: (n, features) in float64."""
    try:
        plain = gzip.decompress(body) if body.startswith(b"\x1f\x8b") else body
        if not plain.startswith(b"\0\0"):
            return np.asarray(orjson.loads(plain)["data"], dtype=np.float64)
        images = decode_idx(plain)
        return images.reshape(len(images), -1) / (255.0 if images.dtype == np.uint8 else 1.0)
    except (DataError, OSError, EOFError, ValueError, TypeError, KeyError) as error:
        raise ScriptRefused(400, f"the body holds no images: {error!r}.") from error


def _predict(model: Any) -> Answer:
    """Like score.py: an image of another size is refused, and does not make ``run()`` raise."""

    def predict(images: np.ndarray) -> Any:
        expected = getattr(model, "n_features_in_", None)
        if expected is not None and images.shape[1:] != (expected,):
            raise ScriptRefused(
                400, f"the images have shape {images.shape}; expected (n, {expected})."
            )
        return model.predict(images)

    return predict


@lru_cache(maxsize=8)
def _load(content: bytes) -> Any:
    return joblib.load(io.BytesIO(content))
