"""Options of a service that are another way here than on Azure: a note each, or a refusal.

An option whose absence nobody would notice until it matters (data that is not collected, a
network that is not private) is refused; the others are taken, and what became of them is told in
the deployment's output and in its log.
"""

from __future__ import annotations

from collections.abc import Iterator

from .environments import Definition, Docker, Python

DEFAULT_IMAGES = "mcr.microsoft.com/azureml/"


def environment_warnings(environment: Definition) -> Iterator[str]:
    docker, python = environment.docker or Docker(), environment.python or Python()
    image = docker.base_image or ""
    if docker.base_dockerfile:
        yield "environment: no image is built of its Dockerfile: it runs in this Python"
    elif image and not image.startswith(DEFAULT_IMAGES):
        yield f"environment: not in its base image {image} but in this Python"
    if python.user_managed_dependencies:
        if not docker.base_dockerfile and (not image or image.startswith(DEFAULT_IMAGES)):
            yield (
                "environment: user_managed_dependencies: on Azure there would be nothing but what "
                "the base image brings; here there is all that this Python has"
            )
    elif python.conda_dependencies and "azureml-defaults" not in str(python.conda_dependencies):
        yield (
            "environment: its conda file lacks azureml-defaults: on Azure nothing would serve the "
            "script"
        )
