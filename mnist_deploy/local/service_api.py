"""Web services: deploy, look at, change, delete; their logs and keys; operations."""

from __future__ import annotations

import copy
import re

from flask import Blueprint, Response, current_app, jsonify, request

from .model_api import CREATOR, MMS, answer, apply_patch, find_model, has_all
from .refusal import Refusal, not_supported
from .services import Operation, Service, Services, already_exists, new_key
from .store import Document

NAME = re.compile(r"[a-z]([-a-z0-9]{0,30}[a-z0-9])?")
HOLD = 10.0  # seconds that the answer about a running operation is held back

service_api = Blueprint("services", __name__)


def services() -> Services:
    return current_app.extensions["services"]


def find_service(name: str) -> Service:
    service = services().find(name)
    if service is None:
        raise Refusal(404, "ServiceNotFound", f"No service {name} is deployed in this workspace.")
    return service


@service_api.post(f"{MMS}/services/validate/name/<name>")
def validate_name(name: str, **_: str) -> Response:
    """The SDK asks before it deploys without overwrite."""
    if services().find(name) is None:
        return jsonify({})
    return jsonify(error={"code": "ServiceAlreadyExists", "message": already_exists(name)})


@service_api.post(f"{MMS}/services/validate")
@service_api.post(f"{MMS}/services/validate/resource")
def validate(**_: str) -> Response:
    return jsonify({})


@service_api.post(f"{MMS}/services")
def create_service(**_: str) -> Response:
    asked = request.get_json()
    check_request(asked)
    recipe = find_recipe(asked)
    service = services().create(asked, recipe, find_models(recipe))
    return accepted(service.operation)


def check_request(asked: Document) -> None:
    if asked.get("computeType") != "ACI":
        raise not_supported(f"web services of compute type {asked.get('computeType')}, only ACI")
    for field in ("sslEnabled", "appInsightsEnabled", "vnetConfiguration", "encryptionProperties"):
        if asked.get(field):
            raise not_supported(f"a web service with {field}")
    if not NAME.fullmatch(asked.get("name") or ""):
        raise Refusal(
            400,
            "InvalidServiceName",
            f"{asked.get('name')!r} is no name for a service: lower-case letters, digits and "
            "'-', at most 32, beginning with a letter.",
        )
    wanted = asked.get("containerResourceRequirements") or {}
    for field, default in (("cpu", 0.1), ("memoryInGB", 0.5)):
        # What Azure takes where nothing is asked for.
        wanted[field] = default if wanted.get(field) is None else wanted[field]
        if not isinstance(wanted[field], (int, float)) or not 0 < wanted[field] <= 1024:
            raise Refusal(400, "InvalidResources", f"{field} must be positive: {wanted[field]!r}")
    asked["containerResourceRequirements"] = wanted


def find_recipe(asked: Document) -> Document:
    """What the container is made of."""
    recipe = asked.get("environmentImageRequest")
    if not recipe or not recipe.get("driverProgram") or not recipe.get("assets"):
        raise not_supported("a deployment without an inference config")
    return recipe


def find_models(recipe: Document) -> list[Document]:
    return [answer(*find_model(model_id)) for model_id in recipe.get("modelIds") or []]


def accepted(operation: Operation) -> Response:
    location = f"{request.path.partition('/services')[0]}/operations/{operation.id}"
    return Response(status=202, headers={"Operation-Location": location})


@service_api.get(f"{MMS}/operations/<operation_id>")
def show_operation(operation_id: str, **_: str) -> Response:
    operation = services().operations.get(operation_id)
    if operation is None:
        raise Refusal(404, "OperationNotFound", f"There is no operation {operation_id}.")
    offset = int(request.args.get("offset", 0))
    if not operation.log_after(offset):
        # The SDK sleeps five seconds between two questions: it asks only once if the
        # first answer is held until there is something to tell.
        operation.wait(HOLD)
    state, log = operation.state, operation.log_after(offset)
    answer: Document = {
        "id": operation.id,
        "operationType": operation.kind,
        "state": state,
        "createdTime": operation.created,
    }
    if state != "Running":
        answer["endTime"] = operation.ended
    if operation.error:
        answer["error"] = operation.error
        answer["operationDetails"] = {"subOperationType": "DeployService"}
    if operation.resource:
        answer["resourceLocation"] = operation.resource
    if log:
        answer["streamingOperationLog"] = log
    return jsonify(answer)


@service_api.get(f"{MMS}/services")
def list_services(**_: str) -> Response:
    query = request.args
    return jsonify(value=[describe(s) for s in services().all() if is_wanted(s, query)])


def is_wanted(service: Service, query: dict[str, str]) -> bool:
    return (
        query.get("computeType", "ACI").upper() == "ACI"
        and has_all(service.request.get("kvTags") or {}, query.get("tags"))
        and has_all(service.request.get("properties") or {}, query.get("properties"))
        and query.get("modelId", "") in ("", *(model["id"] for model in service.models))
        and query.get("modelName", "") in ("", *(model["name"] for model in service.models))
    )


@service_api.get(f"{MMS}/services/<name>")
def show_service(name: str, **_: str) -> Response:
    return jsonify(describe(find_service(name)))


def describe(service: Service) -> Document:
    asked = service.request
    answer: Document = {
        "id": service.name,
        "name": service.name,
        "description": asked.get("description") or "",
        "kvTags": asked.get("kvTags") or {},
        "properties": asked.get("properties") or {},
        "operationId": service.operation.id,
        "state": service.state,
        "createdTime": service.created,
        "updatedTime": service.updated,
        "createdBy": CREATOR,
        "computeType": "ACI",
        "deploymentType": "HttpRealtimeEndpoint",
        "containerResourceRequirements": asked["containerResourceRequirements"],
        "authEnabled": bool(asked.get("authEnabled")),
        "appInsightsEnabled": False,
        "location": "local",
        "scoringUri": f"{service.url}/score",
        "publicIp": "127.0.0.1",
        "publicFqdn": "127.0.0.1",
        "cname": "",
        "sslEnabled": False,
        "sslCertificate": "",
        "sslKey": "",
        # The SDK reads the models of a service with another parser than registered ones.
        "models": [service_model(model) for model in service.models],
    }
    if service.error:
        answer["error"] = service.error
    if "environmentImageRequest" in asked:
        answer["environmentImageRequest"] = asked["environmentImageRequest"]
    if "imageId" in asked:
        answer["imageId"] = asked["imageId"]
    return answer


def service_model(model: Document) -> Document:
    empty = dict.fromkeys(("description", "framework", "frameworkVersion", "experimentName",
                           "runId", "mimeType", "unpack"))  # fmt: skip
    return {**empty, **model, "tags": model["kvTags"]}


@service_api.patch(f"{MMS}/services/<name>")
def update_service(name: str, **_: str) -> Response:
    service = find_service(name)
    asked = copy.deepcopy(service.request)
    for change in request.get_json(force=True):
        apply_patch(asked, change, {"kvTags", "properties", "description", "authEnabled",
                                    "environmentImageRequest", "imageId"})  # fmt: skip
    rebuilt = any(
        asked.get(field) != service.request.get(field)
        for field in ("environmentImageRequest", "imageId")
    )
    recipe = find_recipe(asked) if rebuilt else None
    services().update(service, asked, recipe, find_models(recipe) if recipe else [])
    return accepted(service.operation)


@service_api.delete(f"{MMS}/services/<name>")
def delete_service(name: str, **_: str) -> Response:
    if services().find(name) is None:
        return Response(status=204)
    services().delete(name)
    return Response(status=200)


@service_api.get(f"{MMS}/services/<name>/logs")
def show_logs(name: str, **_: str) -> Response:
    return jsonify(content=find_service(name).log_tail(int(request.args.get("tail", 5000))))


@service_api.post(f"{MMS}/services/<name>/listkeys")
def list_keys(name: str, **_: str) -> Response:
    return jsonify(find_service(name).keys)


@service_api.post(f"{MMS}/services/<name>/regenerateKeys")
def regenerate_key(name: str, **_: str) -> Response:
    service, asked = find_service(name), request.get_json()
    field = {"Primary": "primaryKey", "Secondary": "secondaryKey"}.get(asked.get("keyType", ""))
    if field is None:
        raise Refusal(400, "InvalidKeyType", "keyType must be Primary or Secondary.")

    def regenerate(_: Operation) -> None:
        service.keys[field] = asked.get("keyValue") or new_key()
        service.apply_keys()

    return accepted(services().start_operation("KeyRegeneration", regenerate))
