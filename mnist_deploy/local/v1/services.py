"""Web services: deploy, look at, change, delete; their logs and keys."""

from __future__ import annotations

import copy
import re

from flask import Blueprint, Response, current_app, jsonify, request

from ..core.services import Operation, Service, Services, already_exists, new_key
from .images import find_image, image_recipe
from .models import CREATOR, MMS, Document, answer, apply_patch, details, find_model, has_all
from .operations import accepted
from .refusal import Refusal, not_supported

NAME = re.compile(r"[a-z]([-a-z0-9]{0,30}[a-z0-9])?")
RECIPES = ("environmentImageRequest", "imageId")  # what a service is made of: one of the two

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
    return accepted(services().create(asked, recipe, find_models(recipe)))


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
    if asked.get("imageId"):
        return image_recipe(find_image(asked["imageId"]))
    recipe = asked.get("environmentImageRequest")
    if not recipe or not recipe.get("driverProgram") or not recipe.get("assets"):
        raise not_supported("a deployment without an inference config")
    return recipe


def find_models(recipe: Document) -> list[Document]:
    return [answer(find_model(model_id)) for model_id in recipe.get("modelIds") or []]


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
        "models": [details(model) for model in service.models],
    }
    if service.error:
        answer["error"] = service.error
    return answer | {field: asked[field] for field in RECIPES if asked.get(field)}


@service_api.patch(f"{MMS}/services/<name>")
def update_service(name: str, **_: str) -> Response:
    service = find_service(name)
    asked = copy.deepcopy(service.request)
    changeable = {"kvTags", "properties", "description", "authEnabled", *RECIPES}
    for change in request.get_json(force=True):
        apply_patch(asked, change, changeable)
    rebuilt = [field for field in RECIPES if asked.get(field) != service.request.get(field)]
    recipe = None
    if rebuilt:
        asked |= {field: None for field in RECIPES if field not in rebuilt}
        recipe = find_recipe(asked)
    models = find_models(recipe) if recipe else []
    return accepted(services().update(service, asked, recipe, models))


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
