"""Options of a service that are another way here than on Azure: a note each, or a refusal.

An option whose absence nobody would notice until it matters (data that is not collected, a
network that is not private) is refused; the others are taken, and what became of them is told in
the deployment's output and in its log.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from msgspec import Struct

from ..core.faults import NotSupported
from .environments import Definition, Docker, Python

DEFAULT_IMAGES = "mcr.microsoft.com/azureml/"


class DataCollection(Struct, rename="camel"):
    storage_enabled: bool | None = None
    event_hub_enabled: bool | None = None


class Options(Struct, rename="camel"):
    """What may be asked for beside what the local workspace has."""

    location: str | None = None
    dns_name_label: str | None = None
    ssl_enabled: bool | None = None
    app_insights_enabled: bool | None = None
    vnet_configuration: dict[str, Any] | None = None
    encryption_properties: dict[str, Any] | None = None
    data_collection: DataCollection | None = None


def check_options(options: Options) -> None:
    """Raise `NotSupported` for what cannot be left out silently."""
    refused = {
        "ssl_enabled": options.ssl_enabled,
        "enable_app_insights": options.app_insights_enabled,
        "vnet_name": options.vnet_configuration,
        "cmk_vault_base_url": options.encryption_properties,
        "collect_model_data": options.data_collection
        and (options.data_collection.storage_enabled or options.data_collection.event_hub_enabled),
    }
    for name, value in refused.items():
        if value:
            raise NotSupported(f"a web service with {name}")


def notes_on_options(options: Options) -> Iterator[str]:
    if options.location:
        yield f"location: not {options.location} but this machine"
    if options.dns_name_label:
        yield (
            f"dns_name_label: {options.dns_name_label} is no name here; "
            "scoring_uri has the address, on 127.0.0.1"
        )


def notes_on_environment(environment: Definition) -> Iterator[str]:
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
