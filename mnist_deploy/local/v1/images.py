"""Container images of the deployments of 2018 and 2019: a script, a conda file and models.

No image is built: an image is a record of the script, the conda file and the models of a
container. Images are kept in memory and end with the control plane, as services do.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

from flask import Blueprint, Response, jsonify, request
from msgspec import Meta, Struct

from ..bodies import Document, Labels, body, convert, query, texts
from ..core.container_folder import uploaded_files
from ..core.faults import Invalid, NotFound, NotSupported
from ..core.records import now
from ..rest import endpoints, state, store
from ..validation import parse_conda_file
from .models import (
    CREATOR,
    MMS,
    NAME,
    PatchOperation,
    apply_patch,
    find_model,
    has_labels,
    serialize_model,
    serialize_model_details,
)
from .operations import make_accepted_response

DRIVER = "azureml_driver.py"  # the name given to the SDK's driver, which has no suffix

image_api = Blueprint("images", __name__)


class Images:
    """The images by id, the oldest first."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[str, Document] = {}
        self._last: dict[str, int] = {}  # versions, by name

    def add(self, image: Document) -> Document:
        """Add an image as the next version of its name; numbers are never reused."""
        with self._lock:
            version = self._last[image["name"]] = self._last.get(image["name"], 0) + 1
            image_id = f"{image['name']}:{version}"
            self._known[image_id] = image | {"id": image_id, "version": version}
            return self._known[image_id]

    def all(self) -> list[Document]:
        return list(self._known.values())

    def get(self, image_id: str) -> Document:
        if image_id not in self._known:
            raise NotFound("image", image_id)
        return self._known[image_id]

    def change(self, image_id: str, function: Callable[[Document], Document]) -> Document:
        """Replace an image by ``function(image)`` in one transaction."""
        with self._lock:
            self._known[image_id] = function(self.get(image_id))
            return self._known[image_id]

    def delete(self, image_id: str) -> None:
        with self._lock:
            self._known.pop(image_id, None)

    def artifacts(self) -> Iterator[str]:
        """The artifacts of all images: a GC root of the store."""
        for image in self.all():
            conda_file = image["targetRuntime"]["properties"].get("condaEnvFile")
            for url in (*(asset["url"] for asset in image["assets"]), conda_file or ""):
                yield url.removeprefix("aml://artifact/")


def images() -> Images:
    return state().part(Images)


class RuntimeProperties(Struct, rename="camel"):
    conda_env_file: str | None = None
    install_cuda: bool | None = None
    cuda_version: str | None = None


class ImageRuntime(Struct, rename="camel"):
    properties: RuntimeProperties
    runtime_type: str | None = None


class ImageAsset(Struct):
    """An uploaded file of an image or of an environmentImageRequest."""

    id: str
    url: str
    unpack: bool | None = None


class ImageRequest(Struct, rename="camel"):
    """The interpreted fields of an image; other fields are stored unchanged."""

    name: str
    target_runtime: ImageRuntime
    assets: Annotated[list[ImageAsset], Meta(min_length=1)]  # the first is the scoring script
    driver_program: str | None = None
    image_type: str | None = None
    image_flavor: str | None = None
    docker_file_uri: str | None = None
    model_ids: list[str] | None = None
    kv_tags: Labels | None = None
    properties: Labels | None = None


@image_api.post(f"{MMS}/images")
def create_image(**_: str) -> Response:
    sent = body(Document)
    requested = convert(sent, ImageRequest)
    check_image_request(requested)
    models = [
        serialize_model(find_model(model_id))
        for model_id in dict.fromkeys(requested.model_ids or [])
    ]
    for asset in requested.assets:
        find_upload(asset.url)
    read_conda_file(requested.target_runtime.properties.conda_env_file)
    image = images().add(
        sent
        | {
            "modelIds": [model["id"] for model in models],
            "modelDetails": [serialize_model_details(model) for model in models],
            "kvTags": texts(requested.kv_tags),
            "properties": texts(requested.properties),
            "assets": [{"unpack": False, **asset} for asset in sent["assets"]],
            "creationState": "Succeeded",
            "imageLocation": "local",
            "createdTime": now(),
            "createdBy": CREATOR,
        }
    )
    operation = endpoints().operations.begin("Image", f"{request.path}/{image['id']}")
    operation.finish()
    return make_accepted_response(operation)


def find_upload(url: str) -> Path:
    """The file that an ``aml://artifact/`` address names."""
    for path, file in uploaded_files(store(), url.removeprefix("aml://artifact/")):
        if not path:
            return file
    raise Invalid("artifact", f"{url} is a folder: expected a file.")


def check_image_request(requested: ImageRequest) -> None:
    runtime = requested.target_runtime
    if not NAME.fullmatch(requested.name):
        raise Invalid(
            "image name",
            f"{requested.name!r} is not a valid name of an image. Expected letters, digits, '.', "
            "'_' and '-', beginning with a letter or a digit.",
        )
    if requested.image_type != "Docker" or requested.image_flavor != "WebApiContainer":
        raise NotSupported(f"images of flavour {requested.image_flavor}")
    if not (runtime.runtime_type or "").startswith("Python"):
        raise NotSupported(f"images of runtime {runtime.runtime_type}, only python")
    if requested.docker_file_uri:
        raise NotSupported("images with a docker_file (extra_docker_file_steps)")
    if runtime.properties.install_cuda or runtime.properties.cuda_version:
        raise NotSupported("images with GPUs (enable_gpu, cuda_version)")


def read_conda_file(url: str | None) -> dict[str, Any]:
    """The content of an image's conda file, empty if it has none."""
    if not url:
        return {}
    return parse_conda_file(find_upload(url).read_bytes())


def image_container_spec(image: Document) -> Document:
    """The environment of the image's container, in the schema of the Environment API."""
    driver = image.get("driverProgram")
    conda = read_conda_file(image["targetRuntime"]["properties"].get("condaEnvFile"))
    return {
        "driverProgram": DRIVER,
        "assets": [
            asset | {"id": DRIVER} if asset["id"] == driver else asset for asset in image["assets"]
        ],
        "modelIds": image["modelIds"],
        "environment": {
            "python": {"condaDependencies": conda},
            "docker": {"baseImage": image.get("baseImage")},
        },
    }


@image_api.get(f"{MMS}/images/<image_id>")
def show_image(image_id: str, **_: str) -> Response:
    return jsonify(images().get(image_id))


class ImageQuery(Struct, rename="camel"):
    name: str | None = None
    version: str | None = None
    model_id: str | None = None
    model_name: str | None = None
    tags: str | None = None
    properties: str | None = None


@image_api.get(f"{MMS}/images")
def list_images(**_: str) -> Response:
    requested = query(ImageQuery)
    return jsonify(
        value=[each for each in reversed(images().all()) if matches_image_query(each, requested)]
    )


def matches_image_query(image: Document, requested: ImageQuery) -> bool:
    models = image["modelIds"]
    return (
        requested.name in (None, image["name"])
        and requested.version in (None, str(image["version"]))
        and requested.model_id in (None, *models)
        and requested.model_name in (None, *(model.partition(":")[0] for model in models))
        and has_labels(image["kvTags"], requested.tags)
        and has_labels(image["properties"], requested.properties)
    )


class ChangeableImage(Struct, rename="camel"):
    """The fields of an image that can be changed."""

    kv_tags: Labels | None = None
    properties: Labels | None = None


@image_api.patch(f"{MMS}/images/<image_id>")
def update_image(image_id: str, **_: str) -> Response:
    changes = body(list[PatchOperation])

    def change(image: Document) -> Document:
        changed = convert(apply_patch(image, changes, {"kvTags", "properties"}), ChangeableImage)
        return image | {"kvTags": texts(changed.kv_tags), "properties": texts(changed.properties)}

    return jsonify(images().change(image_id, change))


@image_api.delete(f"{MMS}/images/<image_id>")
def delete_image(image_id: str, **_: str) -> Response:
    images().delete(image_id)
    return Response(status=200)
