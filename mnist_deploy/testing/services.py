"""The services of a mocked workspace: what the SDK is told of them, and how they are scored."""

from __future__ import annotations

import gzip
import io
import secrets
import traceback
from collections.abc import Mapping
from datetime import datetime, timezone
from functools import cache, lru_cache
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import joblib
import numpy as np
import orjson
import requests

from mnist_deploy.data.idx import decode_idx
from mnist_deploy.environments import ENVIRONMENT_NAME, build_scoring_environment
from mnist_deploy.errors import DataError
from mnist_deploy.models import MODEL_FILE, MODEL_NAME

from . import digits, sdk
from .cloud import (
    Answer,
    MockedCloud,
    Plan,
    Refused,
    Said,
    ScoringRequest,
    ScriptRaised,
    ScriptRefused,
    Silent,
)
from .network import CONTROL_HOST, ENDPOINT_HOST, SCORING_HOST, Answered
from .registry import (
    Artifacts,
    Assets,
    Clusters,
    Document,
    Environments,
    Models,
    Reply,
    filled,
    has_all,
)

# What an update may change, in a service of each compute type.
_BOTH = ("kvTags", "properties", "description", "authEnabled")
CHANGEABLE = {"ACI": _BOTH, "AKS": (*_BOTH, "aadAuthEnabled", "numReplicas", "autoScaler")}
# What Azure takes for what a deployment to a cluster does not ask for.
AKS_DEFAULTS: Document = {
    "authEnabled": True,
    "aadAuthEnabled": False,
    "autoScaler": {
        "autoscaleEnabled": True,
        "minReplicas": 1,
        "maxReplicas": 10,
        "refreshPeriodInSeconds": 1,
        "targetUtilization": 70,
    },
    "containerResourceRequirements": {
        "cpu": 0.1, "cpuLimit": None, "memoryInGB": 0.5, "memoryInGBLimit": None, "gpu": 0,
    },
    "dataCollection": {"eventHubEnabled": False, "storageEnabled": False},
    "livenessProbeRequirements": {
        "periodSeconds": 10, "initialDelaySeconds": 310, "timeoutSeconds": 2,
        "successThreshold": 1, "failureThreshold": 3,
    },
    "maxConcurrentRequestsPerContainer": 1,
    "maxQueueWaitMs": 500,
    "scoringTimeoutMs": 60_000,
    "numReplicas": None,
    "namespace": "default",
}  # fmt: skip
DEPLOYMENT_HEADER = "azureml-model-deployment"  # of endpoints: which is meant, which answered
TOKEN_LIFE = 12 * 3600  # seconds
HELD = 10.0  # seconds that the first answer about a deployment without end is held back


class MockedService:
    """What was asked for, what became of it, its keys and its log."""

    state = "Absent"

    def __init__(self, name: str) -> None:
        self.name = name
        self.keys = {"primaryKey": new_key(), "secondaryKey": new_key()}
        self.created = now()
        self.lines: list[str] = []
        self.tokens: list[str] = []

    def deploy(self, asked: Document, models: list[Document], plan: Plan) -> None:
        """Begin to become what is asked for."""
        if asked["computeType"] == "AKS":
            asked = scaled(filled(asked, AKS_DEFAULTS), asked.get("numReplicas") is None)
        self.asked, self.models, self.plan = asked, models, plan
        self.keys |= {name: key for name, key in (asked.get("keys") or {}).items() if key}
        self.updated = now()
        self.state = "Transitioning"
        self.held = HELD
        self.log(f"the container of {self.name} starts")

    def get_on(self) -> None:
        """Settle, unless this deployment is to last for ever."""
        if self.state == "Transitioning" and self.plan.finishes:
            error = self.plan.init_error
            self.state = "Healthy" if error is None else "Failed"
            self.log("init() returned" if error is None else error)

    def log(self, text: str) -> None:
        self.lines += [f"{now()} mocked - {line}" for line in text.splitlines()]

    def describe(self) -> Document:
        """What the SDK's parser asks of Azure's answer."""
        asked = self.asked
        document: Document = {field: asked[field] for field in AKS_DEFAULTS if field in asked} | {
            "id": self.name,
            "name": self.name,
            "description": asked.get("description") or "",
            "kvTags": asked.get("kvTags") or {},
            "properties": asked.get("properties") or {},
            "state": self.state,
            "createdTime": self.created,
            "updatedTime": self.updated,
            "createdBy": {"userName": "mocked user"},
            "operationId": self.name,
            "computeType": asked["computeType"],
            "computeName": asked.get("computeName"),
            "containerResourceRequirements": asked["containerResourceRequirements"],
            "authEnabled": self.asks_for == "key",
            "appInsightsEnabled": bool(asked.get("appInsightsEnabled")),
            "location": asked.get("location") or "mocked",
            "scoringUri": f"http://{self.name}{SCORING_HOST}/score",
            "publicIp": "",
            "publicFqdn": f"{self.name}{SCORING_HOST}",
            "cname": "",
            "sslEnabled": False,
            "sslCertificate": "",
            "sslKey": "",
            "environmentImageRequest": asked.get("environmentImageRequest"),
            "models": self.models,
        }
        return document | self._error()

    def describe_operation(self) -> Document:
        """The deployment as a long-running operation."""
        states = {"Transitioning": "Running", "Healthy": "Succeeded", "Failed": "Failed"}
        document: Document = {"id": self.name, "state": states[self.state]}
        return (
            document | {"operationDetails": {"subOperationType": "DeployService"}} | self._error()
        )

    def _error(self) -> Document:
        if self.state != "Failed":
            return {}
        message = f"The container of {self.name} did not start: init() raised."
        code = f"{self.asked['computeType'].capitalize()}DeploymentFailed"
        return {"error": {"code": code, "statusCode": 400, "message": message}}

    @property
    def asks_for(self) -> str:
        """What a request must carry: a ``token``, a ``key`` or nothing."""
        if self.asked.get("aadAuthEnabled"):
            return "token"
        return "key" if self.asked.get("authEnabled") else ""

    def check_key(self, authorization: str) -> None:
        """Refuse a request without one of the keys or tokens, where they are asked for."""
        accepted = self.tokens if self.asks_for == "token" else self.keys.values()
        scheme, _, offered = authorization.partition(" ")
        if self.asks_for and (scheme.lower() != "bearer" or offered not in accepted):
            raise Refused(401, f"This service asks for a {self.asks_for}.")

    # What is else behind an endpoint of SDK v2.

    @property
    def headers(self) -> dict[str, str]:
        """Of its answers; those of a deployment, ENDPOINT/NAME, name it."""
        deployment = self.name.partition("/")[2]
        return {DEPLOYMENT_HEADER: deployment} if deployment else {}

    def check_state(self) -> None:
        """Refuse a request where nobody answers it: an endpoint is there all the same."""
        if self.state == "Absent":
            raise Refused(404, f"There is no deployment {self.name}, or none gets traffic.")
        if self.state != "Healthy":
            raise Refused(502, f"The deployment {self.name} is {self.state}.")

    def script_error(self, status: int, headers: dict[str, str]) -> int:
        """The status of an answer where the script has said another; an endpoint hides it."""
        if not self.headers:
            return status
        headers["azureml-model-error-statuscode"] = str(status)
        return 424


class ControlPlane:
    """Everything that is registered and deployed, behind the addresses that are asked.

    It starts with the outcome of the tutorial's part one: a model and an environment.

    Attributes
    ----------
    cloud : MockedCloud
        Is told what reached the services.
    said : Said
        How they are to behave.
    """

    def __init__(self) -> None:
        self.said = Said()
        self.cloud = MockedCloud(self.said)
        self.services: dict[str, MockedService] = {}
        self.endpoints: dict[str, Any] = {}  # of SDK v2: MockedEndpoint, in a room loaded later
        self.assets, self.artifacts = Assets(), Artifacts()
        self.models = Models(self._is_in_use)
        self.environments, self.clusters = Environments(), Clusters(self._services_on)
        file = f"LocalUpload/start/{MODEL_FILE}"
        self.artifacts.contents[file] = digits.pickled_model()
        url = f"aml://asset/{self.assets.create_asset(MODEL_NAME, [{'prefix': file}]).id}"
        self.models.register_model(MODEL_NAME, url, digits.TAGS, digits.model_properties())
        self.environments.reply("PUT", [ENVIRONMENT_NAME], _definition())

    def answer(self, request: requests.PreparedRequest, patience: float | None) -> Answered:
        """Answer a request to the control plane, to blob storage or to a service.

        Parameters
        ----------
        patience : float or None
            Seconds that the sender waits; None if for ever.
        """
        url = urlsplit(request.url or "")
        path, content = unquote(url.path), _bytes(request.body)
        if url.hostname != CONTROL_HOST:
            return self._score(url.hostname or "", request, content, patience)
        if path.startswith("/blobs/"):
            return 200, self.artifacts.contents[path.removeprefix("/blobs/")], {}
        asked = orjson.loads(content) if content else None
        query = dict(parse_qsl(url.query))
        status, said, headers = self._reply(request.method or "GET", path, query, asked)
        content = b"" if status == 204 else orjson.dumps(said)
        return status, content, {"Content-Type": "application/json", **headers}

    def left(self) -> list[str]:
        """The services, endpoints and clusters that would go on costing money."""
        endpoints = (f"the endpoint {name}" for name in self.endpoints)
        return [*self.services, *endpoints, *(f"the cluster {x}" for x in self.clusters.left())]

    # The requests of the SDK.

    def _reply(self, method: str, path: str, query: dict[str, str], body: Any) -> Reply:
        # /modelmanagement/v1.0/subscriptions/…/workspaces/NAME/services/…
        below = path.partition(f"{sdk.SCOPE}/")[2].split("/")
        if below[:1] == ["computes"]:
            return self.clusters.reply(method, below[1:], body)
        if path.startswith("/environment/"):
            return self.environments.reply(method, below[1:], body)
        if not path.startswith("/modelmanagement/"):
            raise sdk.not_simulated(f"{method} {path}")
        match method, *below:
            case "POST", "services", "validate", "name", name if name in self.services:
                message = f"There is a service {name} already. Delete it, or overwrite it."
                return 200, {"error": {"message": message}}, {}
            case "POST", "services", "validate", *_:
                return 200, {}, {}
            case "POST", "services":
                return self._create(body)
            case "GET", "services":
                found = [each for each in self.services.values() if is_wanted(each, query)]
                return 200, {"value": [each.describe() for each in found]}, {}
            case _, "services", name, *_ if name not in self.services:
                return (204 if method == "DELETE" else 404), {"message": f"no service {name}"}, {}
            case _, "services" | "operations", name, *rest if name in self.services:
                service = self.services[name]
                return self._reply_about(service, (method, below[0], *rest), query, body)
        raise sdk.not_simulated(f"{method} {path}")

    def _reply_about(
        self, service: MockedService, what: tuple[str, ...], query: Mapping[str, str], body: Any
    ) -> Reply:
        match what:
            case "GET", "operations":
                self._let_get_on(service)
                return 200, service.describe_operation(), {}
            case "GET", "services":
                document = service.describe()
                service.get_on()  # so that the next look finds it settled
                return 200, document, {}
            case "GET", "services", "logs":
                tail = service.lines[-int(query.get("tail", 5000)) :]
                return 200, {"content": "\n".join(tail)}, {}
            case "POST", "services", "listkeys":
                return 200, dict(service.keys), {}
            case "POST", "services", "regenerateKeys":
                field = {"Primary": "primaryKey", "Secondary": "secondaryKey"}[body["keyType"]]
                service.keys[field] = body.get("keyValue") or new_key()
                return accepted(service)
            case "POST", "services", "token" if service.asks_for != "token":
                return 400, {"message": f"{service.name} asks for no token."}, {}
            case "POST", "services", "token":
                service.tokens.append(new_key())
                until = int(self.cloud.clock.time()) + TOKEN_LIFE
                token = {"accessToken": service.tokens[-1], "tokenType": "Bearer"}
                return 200, token | {"refreshAfter": until - 3600, "expiryOn": until}, {}
            case "PATCH", "services":
                return update(service, body)
            case "DELETE", "services":
                del self.services[service.name]
                return 200, {}, {}
        raise sdk.not_simulated(" ".join(what))

    def _let_get_on(self, service: MockedService) -> None:
        service.get_on()
        if service.state == "Transitioning":  # longer each time, so that hours are a few questions
            self.cloud.clock.sleep(service.held)
            service.held *= 2

    def _create(self, asked: Document) -> Reply:
        name = asked["name"]
        if asked["computeType"] not in CHANGEABLE:
            raise sdk.not_simulated(f"a service of compute type {asked['computeType']}")
        model_ids = asked["environmentImageRequest"].get("modelIds") or []
        if asked["computeType"] == "AKS" and asked.get("computeName") not in self.clusters.names:
            message = f"There is no cluster {asked.get('computeName')} in this workspace."
            return 404, {"code": "ComputeNotFound", "message": message}, {}
        models = [describe_model(self.models.get_by_id(model_id)) for model_id in model_ids]
        service = self.services.setdefault(name, MockedService(name))
        service.deploy(asked, models, self.said.plan_for(name))
        return accepted(service)

    def _is_in_use(self, model_id: str) -> bool:
        behind = [each for found in self.endpoints.values() for each in found.deployments.values()]
        services = [*self.services.values(), *behind]
        return any(model["id"] == model_id for service in services for model in service.models)

    def _services_on(self, cluster: str) -> list[str]:
        services = self.services.values()
        return [each.name for each in services if each.asked.get("computeName") == cluster]

    # The requests of those who score.

    def _score(
        self, host: str, request: requests.PreparedRequest, body: bytes, patience: float | None
    ) -> Answered:
        service = self._behind(host, request)
        images: np.ndarray | None = None
        headers = {"Content-Type": "application/json", **service.headers}
        status: int | None = None
        said: Any = None
        try:
            self._take_time(self.said.delay_of(service.name), patience)
            service.check_state()
            service.check_key(str(request.headers.get("Authorization", "")))
            images = read_images(body)
            status, said = 200, self._predict(service, images)
        except ScriptRefused as refusal:
            status, said = service.script_error(refusal.status, headers), {"message": str(refusal)}
        except Refused as refusal:
            status, said = refusal.status, {"message": str(refusal)}
        except Silent:
            self._take_time(float("inf"), patience)
        except ScriptRaised as raised:
            service.log("".join(traceback.format_exception(raised.__cause__)))
            said = {"message": "run() of the scoring script raised; see the logs."}
            status = service.script_error(500, headers)
        finally:
            self.cloud.requests.append(ScoringRequest(service.name, body, images, status))
        return status or 500, orjson.dumps(said), headers

    def _behind(self, host: str, request: requests.PreparedRequest) -> MockedService:
        """What a request to a host reaches."""
        name, _, rest = host.partition(".")
        if f".{rest}" == ENDPOINT_HOST and name in self.endpoints:
            return self.endpoints[name].choose(request.headers.get(DEPLOYMENT_HEADER))
        service = self.services.get(name) if f".{rest}" == SCORING_HOST else None
        if service is None or service.state != "Healthy":
            raise requests.ConnectionError(f"nobody answers at {host}", request=request)
        return service

    def _take_time(self, seconds: float, patience: float | None) -> None:
        if patience is None and seconds == float("inf"):
            raise self.note(AssertionError("This request has no time-out: it would wait for ever."))
        if patience is not None and seconds > patience:
            self.cloud.clock.sleep(patience)
            raise requests.ReadTimeout("the mocked service does not answer in time")
        self.cloud.clock.sleep(seconds)

    def _predict(self, service: MockedService, images: np.ndarray) -> Any:
        answer = self.said.answer_of(service.name)
        try:
            labels = (answer or self._predict_of(service))(images)
            return np.asarray(labels).tolist()
        except (Refused, Silent, ScriptRaised, requests.RequestException):
            raise
        except AssertionError as error:  # a check of the test's, within the answer
            self.note(error)
            raise
        except Exception as error:
            raise ScriptRaised from (self.note(error) if answer else error)

    def note(self, error: Exception) -> Exception:
        """An error of the test's own, which must not end as an answer of the service."""
        self.said.errors.append(error)
        return error

    def _predict_of(self, service: MockedService) -> Answer:
        """The ``predict`` of the model that a service was deployed with."""
        for model in service.models:
            for file in self._files_of(model):
                if file.endswith((".pkl", ".pickle", ".joblib")):
                    return _predict(_load(self.artifacts.contents[file]))
        raise AssertionError(
            f"The service {service.name} has no pickled model to answer from: say what it "
            "answers with mocked_workspace.cloud.answer_with(...)."
        )

    def _files_of(self, model: Document) -> list[str]:
        asset = self.assets.get_asset_by_id(model["url"].removeprefix("aml://asset/"))
        return [file for part in asset.artifacts for file in self.artifacts.under(part.prefix)]


def scaled(asked: Document, by_itself: bool) -> Document:
    """A service whose replicas are counted by the autoscaler, or as many as are asked for."""
    scaler = asked["autoScaler"] | {"autoscaleEnabled": by_itself}
    number = scaler["minReplicas"] if by_itself else asked["numReplicas"]
    return asked | {"autoScaler": scaler, "numReplicas": number}


def update(service: MockedService, changes: list[Document]) -> Reply:
    for change in changes:
        field, _, entry = change["path"].strip("/").partition("/")
        if field not in CHANGEABLE[service.asked["computeType"]]:
            raise sdk.not_simulated(f"an update of {field}")
        old = service.asked.get(field) or {}
        service.asked[field] = {**old, entry: change["value"]} if entry else change["value"]
        if field in ("numReplicas", "autoScaler"):
            by_itself = field == "autoScaler" and service.asked[field]["autoscaleEnabled"]
            service.asked = scaled(service.asked, by_itself)
    return accepted(service)


def accepted(service: MockedService) -> Reply:
    return 202, {}, {"Operation-Location": f"/operations/{service.name}"}


def is_wanted(service: MockedService, query: Mapping[str, str]) -> bool:
    return (
        query.get("computeType", service.asked["computeType"]) == service.asked["computeType"]
        and has_all(service.asked.get("kvTags"), query.get("tags"))
        and has_all(service.asked.get("properties"), query.get("properties"))
        and query.get("modelId", "") in ("", *(model["id"] for model in service.models))
        and query.get("modelName", "") in ("", *(model["name"] for model in service.models))
    )


def describe_model(model: Any) -> Document:
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


def _bytes(body: Any) -> bytes:
    """The body of a request: text, bytes or, as `requests` takes it, an open file."""
    if isinstance(body, str):
        return body.encode()
    return b"".join(body) if hasattr(body, "__next__") else bytes(body or b"")


@cache
def _definition() -> Document:
    return sdk.environment_document(build_scoring_environment(ENVIRONMENT_NAME))


@lru_cache(maxsize=8)
def _load(content: bytes) -> Any:
    return joblib.load(io.BytesIO(content))


def now() -> str:
    return datetime.now(timezone.utc).isoformat()


def new_key() -> str:
    return secrets.token_hex(16)
