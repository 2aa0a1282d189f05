"""Warnings for the options of an environment that have another effect here than on Azure.

A warning begins with the name of its option, and is written to the output of the deployment and to
its log. Options whose absence would be noticed too late (data that is not collected, a network that
is not private) are rejected instead, see `aci.reject_options`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from ..core.curated import IMAGES, find_curated_warning, is_curated_name, make_curated_warning
from .environments import DockerSection, EnvironmentDefinition, PythonSection

DEFAULT_IMAGES = "mcr.microsoft.com/azureml/"
GPU_IMAGE = re.compile(rf"{re.escape(DEFAULT_IMAGES)}\S*(?:gpu|cuda)")


def list_environment_warnings(
    environment: EnvironmentDefinition, name: str | None = None
) -> Iterator[str]:
    """Yield a warning for each property of an environment that has another effect on Azure."""
    docker, python = environment.docker or DockerSection(), environment.python or PythonSection()
    image = docker.base_image or ""
    if name and is_curated_name(name):
        yield make_curated_warning(name)
        return
    if image.startswith(IMAGES):
        yield str(find_curated_warning(image))
        return
    if docker.base_dockerfile:
        yield "environment: no image is built from its Dockerfile; the script runs in this Python"
    elif image and not image.startswith(DEFAULT_IMAGES):
        yield f"environment: the script runs in this Python, not in the base image {image}"
    if GPU_IMAGE.match(image):
        yield f"enable_gpu, cuda_version: the image {image} is for GPUs, which are not used here"
    if python.user_managed_dependencies:
        if not docker.base_dockerfile and (not image or image.startswith(DEFAULT_IMAGES)):
            yield (
                "environment: user_managed_dependencies: on Azure the script uses the packages of "
                "the base image; here it uses those of this Python"
            )
    elif python.conda_dependencies and "azureml-defaults" not in str(python.conda_dependencies):
        yield (
            "environment: its conda file lacks azureml-defaults; on Azure the container would not "
            "start"
        )
