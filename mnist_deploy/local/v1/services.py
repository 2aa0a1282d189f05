"""Web services: deploy, look at, change, delete; their logs and keys."""

from __future__ import annotations

import dataclasses
import re
from typing import Annotated, Any, Literal

from flask import Blueprint, Response, jsonify
from msgspec import Meta, Struct, field, structs, to_builtins

from ..bodies import Document, Labels, body, convert, query, texts
from ..core.deployments import DeploymentSpec, Recipe, Upload
from ..core.endpoints import Endpoint, EndpointSpec, new_key
from ..core.faults import Conflict, Invalid, NotSupported
from . import no_code
from .environments import Definition, Python
from .images import image_recipe, images
from .models import (
    CREATOR,
    MMS,
    Change,
    answer,
    apply_patch,
    details,
    find_model,
    has_all,
)
from .notes import Options, check_options, notes_on_environment, notes_on_options
from .operations import accepted, endpoints
from .refusal import describe as describe_fault

NAME = re.compile(r"[a-z]([-a-z0-9]{0,30}[a-z0-9])?")
RECIPES = ("environmentImageRequest", "imageId")  # what a service is made of: one of the two
CHANGEABLE = {"kvTags", "properties", "description", "authEnabled", "appInsightsEnabled",
              "sslEnabled", *RECIPES}  # fmt: skip
KEY = re.compile("[!-~]+")

service_api = Blueprint("services", __name__)


class Resources(Struct):
    """What Azure takes where nothing is asked for."""

    cpu: float | None = None
    memory: float | None = field(default=None, name="memoryInGB")


class Keys(Struct, rename="camel"):
    primary_key: str | None = None
    secondary_key: str | None = None


class Service(Options, rename="camel", kw_only=True):
    """A service as the SDK asks for it; a recipe is kept as it came, to be shown again."""

    name: str
    compute_type: str | None = None
    description: str | None = None
    kv_tags: Labels | None = None
    properties: Labels | None = None
    keys: Keys = field(default_factory=Keys)
    auth_enabled: bool | None = None
    container_resource_requirements: Resources = field(default_factory=Resources)
    image_id: str | None = None
    environment_image_request: dict[str, Any] | None = None
    overwrite: bool | None = None


class Asset(Struct):
    id: str
    url: str
    unpack: bool | None = None


class ImageRequest(Struct, rename="camel"):
    """The SDK's environmentImageRequest: what a container is made of."""

    driver_program: str
    assets: list[Asset]
    model_ids: list[str] | None = None
    environment: Definition | None = None


def find_service(name: str) -> Endpoint:
    return endpoints().get("service", name)


@service_api.post(f"{MMS}/services/validate/name/<name>")
def validate_name(name: str, **_: str) -> Response:
    """The SDK asks before it deploys without overwrite."""
    if endpoints().find("service", name) is None:
        return jsonify({})
    return jsonify(error={"code": "ServiceAlreadyExists", "message": str(already_exists(name))})


def already_exists(name: str) -> Conflict:
    return Conflict(
        "service",
        f"There is a service {name} already. Delete it, deploy with overwrite=True, or choose "
        "another name.",
    )


@service_api.post(f"{MMS}/services/validate")
@service_api.post(f"{MMS}/services/validate/resource")
def validate(**_: str) -> Response:
    return jsonify({})


@service_api.post(f"{MMS}/services")
def create_service(**_: str) -> Response:
    asked = body(Service)
    check_request(asked)
    recipe = find_recipe(asked)

    def create(present: EndpointSpec | None) -> EndpointSpec:
        if present and not asked.overwrite:
            raise already_exists(asked.name)
        return specification(asked, recipe, present)

    return accepted(endpoints().put("service", asked.name, create))


def check_request(asked: Service) -> None:
    if asked.compute_type != "ACI":
        raise NotSupported(f"web services of compute type {asked.compute_type}, only ACI")
    check_options(asked)
    if not NAME.fullmatch(asked.name):
        raise Invalid(
            "service name",
            f"{asked.name!r} is no name for a service: lower-case letters, digits and "
            "'-', at most 32, beginning with a letter.",
        )
    wanted = asked.container_resource_requirements
    own = convert(no_code.resources(asked.environment_image_request or {}), Resources)
    wanted.cpu = next(cpu for cpu in (wanted.cpu, own.cpu, 0.1) if cpu is not None)
    wanted.memory = next(gb for gb in (wanted.memory, own.memory, 0.5) if gb is not None)
    for name, value, most in (("cpu_cores", wanted.cpu, 4), ("memory_gb", wanted.memory, 16)):
        if not 0 < value <= most:
            raise Invalid(
                "resources", f"{name} of a container instance is at most {most}, not {value:g}."
            )
    for key in (asked.keys.primary_key, asked.keys.secondary_key):
        check_key(key)


def check_key(key: str | None) -> None:
    if key and not KEY.fullmatch(key):
        raise Invalid(
            "key", "A key consists of letters, digits and other signs of ASCII, without spaces."
        )


def find_recipe(asked: Service) -> Recipe:
    """What the container is made of."""
    document = asked.environment_image_request
    if asked.image_id:
        document = image_recipe(images().get(asked.image_id))
    recipe, resources = recipe_of_image(document), asked.container_resource_requirements
    return dataclasses.replace(
        recipe,
        cpu_cores=resources.cpu or 0,
        memory_gb=resources.memory or 0,
        notes=(*notes_on_options(asked), *recipe.notes),
    )


def recipe_of_image(document: Document | None) -> Recipe:
    """What an environmentImageRequest asks for, in a container of no particular size."""
    if document and no_code.lacks_script(document):
        document = no_code.add_script(document)
    image = convert(document, ImageRequest)
    environment = image.environment or Definition()
    python = environment.python or Python()
    models = {model.id: model for model in map(find_model, image.model_ids or [])}
    return Recipe(
        script=image.driver_program,
        uploads=tuple(
            Upload(asset.url.removeprefix("aml://artifact/"), asset.id, bool(asset.unpack))
            for asset in image.assets
        ),
        models=tuple(models.values()),
        conda=None if python.user_managed_dependencies else python.conda_dependencies,
        variables=texts(environment.environment_variables),
        notes=tuple(notes_on_environment(environment)),
    )


def specification(asked: Service, recipe: Recipe, present: EndpointSpec | None) -> EndpointSpec:
    """What is wanted of the endpoint. One that is overwritten or changed keeps its keys."""
    keys = {name: key for name, key in to_builtins(asked.keys).items() if key}
    if present:
        keys = {"primaryKey": present.primary_key, "secondaryKey": present.secondary_key} | keys
    return EndpointSpec(
        deployments={asked.name: DeploymentSpec(recipe)},
        traffic={asked.name: 100},
        authentication="key" if asked.auth_enabled else "none",
        primary_key=keys.get("primaryKey") or new_key(),
        secondary_key=keys.get("secondaryKey") or new_key(),
        description=asked.description or "",
        tags=texts(asked.kv_tags),
        properties=texts(asked.properties),
        other=structs.replace(asked, keys=Keys()),
    )


class ServiceQuery(Struct, rename="camel"):
    compute_type: str = ""
    tags: str | None = None
    properties: str | None = None
    model_id: str = ""
    model_name: str = ""
    image_id: str = ""
    image_name: str = ""
    image_digest: str = ""


@service_api.get(f"{MMS}/services")
def list_services(**_: str) -> Response:
    asked = query(ServiceQuery)
    return jsonify(value=[describe(s) for s in endpoints().all("service") if is_wanted(s, asked)])


def is_wanted(service: Endpoint, asked: ServiceQuery) -> bool:
    models, image = recipe_of(service).models, service.spec.other.image_id or ""
    return (
        asked.compute_type.upper() in ("", "ACI")
        and has_all(service.spec.tags, asked.tags)
        and has_all(service.spec.properties, asked.properties)
        and asked.model_id in ("", *(model.id for model in models))
        and asked.model_name in ("", *(model.name for model in models))
        and asked.image_id in ("", image)
        and asked.image_name in ("", image.partition(":")[0])
        and not asked.image_digest  # images have none here
    )


def recipe_of(service: Endpoint) -> Recipe:
    return service.spec.deployments[service.name].recipe


@service_api.get(f"{MMS}/services/<name>")
def show_service(name: str, **_: str) -> Response:
    return jsonify(describe(find_service(name)))


def describe(service: Endpoint) -> Document:
    asked: Service = service.spec.other
    error = service.deployments[service.name].error
    recipe = {name: value for name, value in to_builtins(asked).items() if name in RECIPES}
    return {
        "id": service.name,
        "name": service.name,
        "description": service.spec.description,
        "kvTags": service.spec.tags,
        "properties": service.spec.properties,
        "operationId": service.operation.id,
        "state": service.state,
        "createdTime": service.created,
        "updatedTime": service.updated,
        "createdBy": CREATOR,
        "computeType": "ACI",
        "deploymentType": "HttpRealtimeEndpoint",
        "containerResourceRequirements": to_builtins(asked.container_resource_requirements),
        "authEnabled": service.spec.authentication == "key",
        "appInsightsEnabled": False,
        "location": "local",
        "scoringUri": f"{service.url}/score",
        "publicIp": "127.0.0.1",
        "publicFqdn": "127.0.0.1",
        "cname": "",
        "sslEnabled": False,
        "sslCertificate": "",
        "sslKey": "",
        "models": [details(answer(model)) for model in recipe_of(service).models],
        **({"error": describe_fault(error)} if error else {}),
        **{name: value for name, value in recipe.items() if value},
    }


@service_api.patch(f"{MMS}/services/<name>")
def update_service(name: str, **_: str) -> Response:
    changes = body(list[Change])

    def update(present: EndpointSpec) -> EndpointSpec:
        before = to_builtins(present.other)
        document = apply_patch(before, changes, CHANGEABLE)
        renewed = [field for field in RECIPES if document[field] != before[field]]
        if renewed:
            document |= {field: None for field in RECIPES if field not in renewed}
        asked = convert(document, Service)
        check_options(asked)
        check_properties(present.properties, texts(asked.properties))
        recipe = present.deployments[name].recipe
        return specification(asked, find_recipe(asked) if renewed else recipe, present)

    return accepted(endpoints().change("service", name, update))


def check_properties(present: dict[str, str], wanted: dict[str, str]) -> None:
    """Properties can be added and not changed, as on Azure."""
    for name, value in present.items():
        if wanted.get(name) != value:
            raise Invalid(
                "property",
                f"{name} is {value!r}: properties of a service can be added and not changed. "
                "Tags can.",
            )


@service_api.delete(f"{MMS}/services/<name>")
def delete_service(name: str, **_: str) -> Response:
    if endpoints().find("service", name) is None:
        return Response(status=204)
    endpoints().delete("service", name)
    return Response(status=200)


class LogQuery(Struct):
    tail: Annotated[int, Meta(ge=0)] = 5000


@service_api.get(f"{MMS}/services/<name>/logs")
def show_logs(name: str, **_: str) -> Response:
    lines = query(LogQuery).tail
    return jsonify(content=find_service(name).deployments[name].log_tail(lines))


@service_api.post(f"{MMS}/services/<name>/listkeys")
def list_keys(name: str, **_: str) -> Response:
    spec = find_service(name).spec
    return jsonify(primaryKey=spec.primary_key, secondaryKey=spec.secondary_key)


class Regeneration(Struct, rename="camel"):
    key_type: Literal["Primary", "Secondary"]
    key_value: str | None = None


@service_api.post(f"{MMS}/services/<name>/regenerateKeys")
def regenerate_key(name: str, **_: str) -> Response:
    asked = body(Regeneration)
    check_key(asked.key_value)
    key = asked.key_value or new_key()

    def regenerate(spec: EndpointSpec) -> EndpointSpec:
        if asked.key_type == "Primary":
            return dataclasses.replace(spec, primary_key=key)
        return dataclasses.replace(spec, secondary_key=key)

    return accepted(endpoints().change("service", name, regenerate))
