"""Compares the packages that an environment requires with the installed packages."""

from __future__ import annotations

import platform
import re
from collections.abc import Iterator
from importlib import metadata
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement

# Not compared: the local workspace provides the packages that azureml-defaults installs on Azure.
PROVIDED = {"azureml-defaults", "pip"}
SMALLER = {"mlflow": "mlflow-skinny"}  # distributions that serve where the larger is not installed


def differences(conda: dict[str, Any] | None) -> list[str]:
    """Return a line for each required package that is missing, or installed in another version.

    Parameters
    ----------
    conda : dict or None
        The content of an environment's conda file.
    """
    dependencies = (conda or {}).get("dependencies")
    return list(filter(None, map(difference, requirements(dependencies))))


def requirements(dependencies: object) -> Iterator[Requirement]:
    """Yield the entries of a conda file's list, and of the pip list in it, in pip's syntax."""
    for entry in dependencies if isinstance(dependencies, list) else []:
        lines = entry.get("pip") if isinstance(entry, dict) else [conda_to_pip(str(entry))]
        for line in lines if isinstance(lines, list) else []:
            try:
                yield Requirement(str(line).split("#")[0].strip())
            except InvalidRequirement:
                continue  # an option or a URL, such as --extra-index-url


def conda_to_pip(entry: str) -> str:
    """Convert ``channel::name=1.5=build``, ``name=1.5`` and ``name 1.5`` to ``name==1.5.*``."""
    entry = entry.split("::")[-1].strip()
    name = re.split(r"[\s=<>!~]", entry, maxsplit=1)[0]
    version = entry.removeprefix(name).strip()
    if re.match(r"=?[\w.*]", version):
        version = re.split(r"[\s=]", version.lstrip("="))[0]
        version = f"=={version.removesuffix('.*')}.*"
    return name + version


def difference(requirement: Requirement) -> str | None:
    name = requirement.name
    if name in PROVIDED or (requirement.marker and not requirement.marker.evaluate()):
        return None
    found: str | None
    if name == "python":
        found = platform.python_version()
    else:
        found = installed_version(name) or installed_version(SMALLER.get(name, name))
    if found is not None and requirement.specifier.contains(found, prereleases=True):
        return None
    required = str(requirement.specifier) or "any version"
    return (
        f"environment: {name}: required {required}, installed {found or 'none'}; "
        f"on Azure the image would have {name} {required}"
    )


def installed_version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
