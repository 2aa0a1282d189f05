"""The control plane of a mocked workspace: what the SDK is told, of services above all."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import orjson
import requests

from mnist_deploy.environments import ENVIRONMENT_NAME, build_scoring_environment
from mnist_deploy.models import MODEL_FILE, MODEL_NAME

from . import digits, sdk
from .cloud import MockedCloud, Plan, Said
from .network import SCORING_HOST, Answered
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

    def answer(self, request: requests.PreparedRequest, body: bytes, _: object) -> Answered:
        """Answer the SDK's request to the control plane or to blob storage."""
        url = urlsplit(request.url or "")
        path, query = unquote(url.path), dict(parse_qsl(url.query))
        if path.startswith("/blobs/"):
            return 200, self.artifacts.contents[path.removeprefix("/blobs/")], {}
        asked = orjson.loads(body) if body else None
        status, said, headers = self._reply(request.method or "GET", path, query, asked)
        content = b"" if status == 204 else orjson.dumps(said)
        return status, content, {"Content-Type": "application/json", **headers}

    def left(self) -> list[str]:
        """The services, endpoints and clusters that would go on costing money."""
        endpoints = (f"the endpoint {name}" for name in self.endpoints)
        return [*self.services, *endpoints, *(f"the cluster {x}" for x in self.clusters.left())]

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

    def files_of(self, model: Document) -> list[str]:
        """The ids of the files of a model, as a service describes it."""
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


@cache
def _definition() -> Document:
    return sdk.environment_document(build_scoring_environment(ENVIRONMENT_NAME))


def now() -> str:
    return datetime.now(UTC).isoformat()


def new_key() -> str:
    return secrets.token_hex(16)
