"""The services behind a mocked workspace put together: what is asked, and who answers it."""

from __future__ import annotations

import hmac
import io
import traceback
from functools import lru_cache
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import joblib
import numpy as np
import orjson
import requests

from .cloud import MockedCloud
from .registry import Artifacts, Assets, Environments, Models
from .scoring import Answer, Refused, ScoringRequest, read_images
from .service_api import Reply, ServiceApi, not_simulated
from .services import Document, MockedService
from .transport import CONTROL_HOST, Answered


class Backend:
    """Everything that is registered and deployed, behind the addresses that the SDK asks.

    Parameters
    ----------
    cloud : MockedCloud
        Says how services behave, and is told what reached them.
    """

    def __init__(self, cloud: MockedCloud) -> None:
        self._cloud = cloud
        self.assets, self.artifacts = Assets(), Artifacts()
        self.models = Models(self._is_in_use)
        self.environments = Environments()
        self._api = ServiceApi(self._describe_models, cloud.plan_for)

    def answer(self, request: requests.PreparedRequest) -> Answered:
        """Answer an HTTP request to the control plane, to blob storage or to a service."""
        url = urlsplit(request.url or "")
        path = unquote(url.path)
        content = _bytes(request.body)
        if url.hostname != CONTROL_HOST:
            name = (url.hostname or "").partition(".")[0]
            return self._score(name, request, content)
        if path.startswith("/blobs/"):
            return 200, self.artifacts.content(path.removeprefix("/blobs/")), {}
        method = request.method or "GET"
        asked = orjson.loads(content) if content else None
        status, said, headers = self._reply(method, path, dict(parse_qsl(url.query)), asked)
        content = b"" if status == 204 else orjson.dumps(said)
        return status, content, {"Content-Type": "application/json", **headers}

    def _reply(self, method: str, path: str, query: dict[str, str], body: Any) -> Reply:
        # /modelmanagement/v1.0/subscriptions/…/workspaces/NAME/services/…
        below = path.partition("/workspaces/")[2].split("/")[1:]
        if path.startswith("/modelmanagement/"):
            return self._api.reply(method, below, query, body)
        if path.startswith("/environment/"):
            return self.environments.reply(method, below[1:], body)
        raise not_simulated(f"{method} {path}")

    def _score(self, name: str, request: requests.PreparedRequest, body: bytes) -> Answered:
        service = self._api.services.get(name)
        if service is None or service.state != "Healthy":
            raise requests.ConnectionError(f"no service {name!r} is running", request=request)
        images: np.ndarray | None = None
        status: int | None = None
        said: Any = None
        try:
            _check_key(service, request)
            images = read_images(body)
            answer = self._cloud.answer_of(name) or self._predict_of(service)
            status, said = 200, np.asarray(answer(images)).tolist()
        except Refused as refusal:
            status, said = refusal.status, {"message": str(refusal)}
        except (requests.RequestException, AssertionError):
            raise  # the connection's failure, or the test's own
        except Exception:
            service.log(traceback.format_exc())
            status, said = 500, {"message": "run() of the scoring script raised; see the logs."}
        finally:
            self._cloud.requests.append(ScoringRequest(name, body, images, status))
        return status, orjson.dumps(said), {"Content-Type": "application/json"}

    def _predict_of(self, service: MockedService) -> Answer:
        """The ``predict`` of the model that a service was deployed with."""
        for model in service.models:
            for file in self._files_of(model):
                if file.endswith((".pkl", ".pickle", ".joblib")):
                    return _predict(_load(self.artifacts.content(file)))
        raise AssertionError(
            f"The service {service.name} has no pickled model to answer from: say what it "
            "answers with mocked_workspace.cloud.answer_with(...)."
        )

    def _files_of(self, model: Document) -> list[str]:
        asset = self.assets.get_asset_by_id(model["url"].removeprefix("aml://asset/"))
        return [file for part in asset.artifacts for file in self.artifacts.under(part.prefix)]

    def _describe_models(self, model_ids: list[str]) -> list[Document]:
        return [_describe(self.models.get_by_id(model_id)) for model_id in model_ids]

    def _is_in_use(self, model_id: str) -> bool:
        services = self._api.services.values()
        return any(model["id"] == model_id for service in services for model in service.models)


def _describe(model: Any) -> Document:
    """A model as part of a service, which the SDK reads with a parser of its own."""
    return {
        "id": model.id,
        "name": model.name,
        "version": model.version,
        "url": model.url,
        "createdTime": model.created_time.isoformat(),
        "createdBy": model.created_by,
        "description": model.description,
        "mimeType": model.mime_type,
        "framework": model.framework,
        "frameworkVersion": model.framework_version,
        "tags": model.kv_tags,
        "properties": model.properties,
        "unpack": model.unpack,
        "experimentName": model.experiment_name,
        "runId": model.run_id,
        "datasets": [],
    }


def _predict(model: Any) -> Answer:
    """Like score.py: an image of another size is refused, and does not make ``run()`` raise."""

    def predict(images: np.ndarray) -> Any:
        expected = getattr(model, "n_features_in_", None)
        if expected is not None and images.shape[1:] != (expected,):
            raise Refused(400, f"the images have shape {images.shape}; expected (n, {expected}).")
        return model.predict(images)

    return predict


def _check_key(service: MockedService, request: requests.PreparedRequest) -> None:
    if not service.asked.get("authEnabled"):
        return
    offered = str(request.headers.get("Authorization", "")).removeprefix("Bearer ").encode()
    # Every key is compared, whatever the first comparison gave.
    if not any([hmac.compare_digest(offered, key.encode()) for key in service.keys.values()]):
        raise Refused(401, "This service asks for one of its keys.")


def _bytes(body: Any) -> bytes:
    """The body of a request; the SDK and our client send text or bytes, nothing else."""
    return body.encode() if isinstance(body, str) else bytes(body or b"")


@lru_cache(maxsize=8)
def _load(content: bytes) -> Any:
    return joblib.load(io.BytesIO(content))
