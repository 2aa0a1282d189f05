"""Container images, the way of deploying of 2018 and 2019: a script, a conda file and models.

An image is a note of what its container will be made of. Like services, images live as
long as the control plane.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import yaml
from flask import Blueprint, Response, current_app, jsonify, request

from ..bodies import Document
from ..core.folder import uploaded_files
from ..core.records import now
from .artifacts import store
from .models import (
    CREATOR,
    MMS,
    answer,
    apply_patch,
    details,
    find_model,
    has_all,
)
from .operations import accepted, endpoints
from .refusal import Refusal, not_supported

DRIVER = "azureml_driver.py"  # the SDK's driver has no suffix, and could not be imported so

image_api = Blueprint("images", __name__)


def images() -> dict[str, Document]:
    """Every image by its id, the oldest first."""
    return current_app.extensions["images"]


def files(images: Iterable[Document]) -> Iterator[str]:
    """The artifacts that images may yet be made of."""
    for image in images:
        urls = [asset["url"] for asset in image["assets"]]
        urls.append(image["targetRuntime"]["properties"].get("condaEnvFile") or "")
        yield from (url.removeprefix("aml://artifact/") for url in urls)


def find_image(image_id: str) -> Document:
    image = images().get(image_id)
    if image is None:
        raise Refusal(404, "ImageNotFound", f"There is no image {image_id} in this workspace.")
    return image


@image_api.post(f"{MMS}/images")
def create_image(**_: str) -> Response:
    asked = request.get_json()
    check_request(asked)
    models = [answer(find_model(model_id)) for model_id in asked.get("modelIds") or []]
    for asset in asked["assets"]:
        upload_of(asset["url"])
    read_conda_file(asked)
    name = asked["name"]
    version = 1 + max((image["version"] for image in images().values() if image["name"] == name),
                      default=0)  # fmt: skip
    image_id = f"{name}:{version}"
    images()[image_id] = asked | {
        "id": image_id,
        "version": version,
        "modelIds": [model["id"] for model in models],
        "modelDetails": [details(model) for model in models],
        "kvTags": asked.get("kvTags") or {},
        "properties": asked.get("properties") or {},
        "assets": [{"unpack": False, **asset} for asset in asked["assets"]],
        "creationState": "Succeeded",
        "imageLocation": "local",
        "createdTime": now(),
        "createdBy": CREATOR,
    }

    operation = endpoints().operations.begin("Image", f"{request.path}/{image_id}")
    operation.finish()
    return accepted(operation)


def upload_of(url: str) -> Path:
    [(_, file)] = uploaded_files(store(), url.removeprefix("aml://artifact/"))
    return file


def check_request(asked: Document) -> None:
    runtime = asked["targetRuntime"]
    if asked.get("imageType") != "Docker" or asked.get("imageFlavor") != "WebApiContainer":
        raise not_supported(f"images of flavour {asked.get('imageFlavor')}")
    if not (runtime.get("runtimeType") or "").startswith("Python"):
        raise not_supported(f"images of runtime {runtime.get('runtimeType')}, only python")
    if asked.get("dockerFileUri"):
        raise not_supported("images with a docker_file")
    for field in ("installCuda", "cudaVersion"):
        if runtime["properties"].get(field):
            raise not_supported("images for GPUs")
    if not asked.get("assets"):
        raise Refusal(400, "InvalidImage", "An image needs a scoring script.")


def read_conda_file(image: Document) -> dict[str, Any]:
    """The content of the image's conda file, empty if it has none."""
    url = image["targetRuntime"]["properties"].get("condaEnvFile")
    if not url:
        return {}
    try:
        content = yaml.safe_load(upload_of(url).read_bytes())
    except yaml.YAMLError as error:
        raise Refusal(400, "InvalidCondaFile", f"The conda file is no YAML: {error}") from error
    if not isinstance(content, dict):
        raise Refusal(400, "InvalidCondaFile", "The conda file holds no mapping of keys to values.")
    return content


def image_recipe(image: Document) -> Document:
    """What the image's container is made of, in the words of the later Environment API."""
    driver = image.get("driverProgram")
    return {
        "driverProgram": DRIVER,
        "assets": [
            asset | {"id": DRIVER} if asset["id"] == driver else asset for asset in image["assets"]
        ],
        "modelIds": image["modelIds"],
        "environment": {"python": {"condaDependencies": read_conda_file(image)}},
    }


@image_api.get(f"{MMS}/images/<image_id>")
def show_image(image_id: str, **_: str) -> Response:
    return jsonify(find_image(image_id))


@image_api.get(f"{MMS}/images")
def list_images(**_: str) -> Response:
    newest_first = reversed(images().values())
    return jsonify(value=[each for each in newest_first if is_wanted(each, request.args)])


def is_wanted(image: Document, query: dict[str, str]) -> bool:
    models = image["modelIds"]
    return (
        query.get("name") in (None, image["name"])
        and query.get("version") in (None, str(image["version"]))
        and query.get("modelId") in (None, *models)
        and query.get("modelName") in (None, *(model.partition(":")[0] for model in models))
        and has_all(image["kvTags"], query.get("tags"))
        and has_all(image["properties"], query.get("properties"))
    )


@image_api.patch(f"{MMS}/images/<image_id>")
def update_image(image_id: str, **_: str) -> Response:
    image = find_image(image_id)
    for change in request.get_json(force=True):
        apply_patch(image, change, {"kvTags", "properties"})
    return jsonify(image)


@image_api.delete(f"{MMS}/images/<image_id>")
def delete_image(image_id: str, **_: str) -> Response:
    images().pop(image_id, None)
    return Response(status=200)
