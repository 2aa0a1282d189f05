"""Container specs from the SDK's environmentImageRequest, or from an image of the image API."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct

from ..bodies import Document, convert, texts
from ..core.archives import find_skipped_links
from ..core.container_folder import uploaded_files
from ..core.container_spec import ContainerSpec, Upload
from ..core.faults import Invalid
from ..rest import store
from . import no_code
from .environments import EnvironmentDefinition, PythonSection, check_definition
from .images import ImageAsset, image_container_spec, images
from .models import find_model
from .option_warnings import list_environment_warnings


class EnvironmentSection(EnvironmentDefinition, kw_only=True):
    name: str | None = None
    version: str | None = None


class EnvironmentImageRequest(Struct, rename="camel"):
    driver_program: str
    assets: list[ImageAsset]
    model_ids: list[str] | None = None
    environment: EnvironmentSection | None = None


def find_container_spec(image_id: str | None, document: Document | None) -> ContainerSpec:
    """The spec of an image or of an environmentImageRequest, with the default size."""
    return make_container_spec(
        image_container_spec(images().get(image_id)) if image_id else document
    )


def make_container_spec(document: Document | None) -> ContainerSpec:
    """The spec of an environmentImageRequest, with the default size."""
    if document and no_code.lacks_script(document):
        document = no_code.add_script(document)
    image = convert(document, EnvironmentImageRequest)
    environment = check_environment(image.environment)
    python = environment.python or PythonSection()
    models = {model.id: model for model in map(find_model, image.model_ids or [])}
    return ContainerSpec(
        script=image.driver_program,
        uploads=tuple(
            Upload(read_artifact_path(asset.url), asset.id, bool(asset.unpack))
            for asset in image.assets
        ),
        models=tuple(models.values()),
        conda=None if python.user_managed_dependencies else python.conda_dependencies,
        environment=f"{environment.name}:{environment.version}" if environment.version else "",
        variables=texts(environment.environment_variables),
        warnings=(
            *list_environment_warnings(environment, environment.name),
            *list_link_warnings(image.assets),
        ),
    )


def check_environment(environment: EnvironmentSection | None) -> EnvironmentSection:
    """The environment of a request.

    Raises
    ------
    Invalid
        If there is no environment, or `check_definition` rejects it.
    """
    if environment is None:
        raise Invalid(
            "environment",
            "The InferenceConfig has no environment: pass environment=Environment.get(ws, name), "
            "which Azure requires as well.",
        )
    check_definition(environment)
    return environment


def list_link_warnings(assets: list[ImageAsset]) -> Iterator[str]:
    """Warnings for links in source directories that are not copied into the container."""
    for asset in assets:
        if asset.unpack:
            for path, file in uploaded_files(store(), read_artifact_path(asset.url)):
                for link in find_skipped_links(file) if not path else ():
                    yield (
                        f"source_directory: the link {link} is not copied, because its target is "
                        "missing or outside of the directory"
                    )


def read_artifact_path(url: str) -> str:
    return url.removeprefix("aml://artifact/")
