"""What a container is made of: the SDK's environmentImageRequest, or an image of 2018."""

from __future__ import annotations

from msgspec import Struct

from ..bodies import Document, convert, texts
from ..core.container_spec import ContainerSpec, Upload
from . import no_code
from .environments import Definition, Python
from .images import image_container_spec, images
from .models import find_model
from .option_warnings import environment_warnings


class Asset(Struct):
    id: str
    url: str
    unpack: bool | None = None


class Environment(Definition, kw_only=True):
    name: str | None = None
    version: str | None = None


class ImageRequest(Struct, rename="camel"):
    driver_program: str
    assets: list[Asset]
    model_ids: list[str] | None = None
    environment: Environment | None = None


def find_container_spec(image_id: str | None, document: Document | None) -> ContainerSpec:
    """What is asked for, in a container of no particular size."""
    return container_spec_of_image(
        image_container_spec(images().get(image_id)) if image_id else document
    )


def container_spec_of_image(document: Document | None) -> ContainerSpec:
    """What an environmentImageRequest asks for, in a container of no particular size."""
    if document and no_code.lacks_script(document):
        document = no_code.add_script(document)
    image = convert(document, ImageRequest)
    environment = image.environment or Environment()
    python = environment.python or Python()
    models = {model.id: model for model in map(find_model, image.model_ids or [])}
    return ContainerSpec(
        script=image.driver_program,
        uploads=tuple(
            Upload(asset.url.removeprefix("aml://artifact/"), asset.id, bool(asset.unpack))
            for asset in image.assets
        ),
        models=tuple(models.values()),
        conda=None if python.user_managed_dependencies else python.conda_dependencies,
        environment=f"{environment.name}:{environment.version}" if environment.version else "",
        variables=texts(environment.environment_variables),
        warnings=tuple(environment_warnings(environment)),
    )
