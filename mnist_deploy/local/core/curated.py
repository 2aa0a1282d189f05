"""Azure's curated environments, which the local workspace replaces by the running Python."""

from __future__ import annotations

import platform
import re

from .records import Environment

PREFIX = "azureml-"
IMAGES = "mcr.microsoft.com/azureml/curated/"
REGISTRY_ID = re.compile(
    r"azureml://registries/azureml[^/]*/environments/([^/]+)/(?:versions|labels)/([^/]+)",
    re.IGNORECASE,
)
CREATED = "2022-01-01T00:00:00+00:00"


def is_curated_name(name: str) -> bool:
    """Whether an environment is curated: only Azure's own names begin with ``AzureML-``."""
    return name.lower().startswith(PREFIX)


def make_curated_environment(name: str, version: str | None = None) -> Environment:
    """A record for a curated environment; its description states that this Python replaces it."""
    python = platform.python_version()
    return Environment(
        name,
        version or "1",
        CREATED,
        description=(
            f"Azure's curated environment {name}. Scripts of the local workspace run in this "
            f"Python, {python}, with its installed packages."
        ),
        conda={"name": "base", "dependencies": ["python", {"pip": ["azureml-defaults"]}]},
        image=f"{IMAGES}{name.lower()}",
    )


def find_registry_environment(reference: str) -> Environment | None:
    """The environment that a reference to Azure's registry names; None for other references."""
    found = REGISTRY_ID.fullmatch(reference)
    return make_curated_environment(found[1], found[2]) if found else None


def find_curated_warning(image: str | None) -> str | None:
    """The warning for a curated image; None for any other image."""
    if not (image or "").startswith(IMAGES):
        return None
    return make_curated_warning(f"the image {image}")


def make_curated_warning(subject: str) -> str:
    return (
        f"environment: {subject} belongs to a curated environment of Azure; here the script runs "
        f"in this Python, {platform.python_version()}, with the installed packages"
    )
