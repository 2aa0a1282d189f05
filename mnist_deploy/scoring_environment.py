"""The environment that a model is scored in: environment.yml, pinned to what is installed here."""

from __future__ import annotations

import os
import platform
import re
import tempfile
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from packaging.requirements import InvalidRequirement, Requirement

from .tutorial import tutorial_file

if TYPE_CHECKING:
    from azureml.core import Environment


def build_scoring_environment(
    name: str = "tutorial-env", file: str | os.PathLike[str] | None = None
) -> Environment:
    """The environment of environment.yml, with the versions that are installed here as its pins.

    A model is sure to load only where the versions that saved it are installed: with their
    pins, model and environment agree. What is not installed here keeps the file's own pin.

    Parameters
    ----------
    name : str
        Under which it will be registered.
    file : path-like, optional
        A conda specification; by default the tutorial's.

    Returns
    -------
    azureml.core.Environment
        Not registered yet.
    """
    from azureml.core import Environment

    text = Path(file or tutorial_file("environment.yml")).read_text(encoding="utf-8")
    specification = yaml.safe_load(text)
    specification["name"] = name
    specification["dependencies"] = [_pin(entry) for entry in specification["dependencies"]]
    with tempfile.TemporaryDirectory() as folder:
        pinned = Path(folder) / "environment.yml"
        pinned.write_text(yaml.safe_dump(specification, sort_keys=False), encoding="utf-8")
        return Environment.from_conda_specification(name, str(pinned))


def _pin(entry: Any) -> Any:
    if isinstance(entry, dict):
        return {"pip": [_pin_requirement(line) for line in entry["pip"]]}
    if entry.partition("=")[0] == "python":
        return "python=" + ".".join(platform.python_version_tuple()[:2])
    return entry


def _pin_requirement(line: str) -> str:
    name = Requirement(line).name
    try:
        return f"{name}=={metadata.version(name)}"
    except metadata.PackageNotFoundError:
        return line


def pinned_version(environment: Environment, package: str) -> str | None:
    """The version that an environment pins a package to (``==`` or conda's ``=``), or None."""
    dependencies = environment.python.conda_dependencies
    entries = [*dependencies.conda_packages, *dependencies.pip_packages]
    for entry in entries:
        try:
            requirement = Requirement(re.sub(r"(?<![=<>!~])=(?!=)", "==", entry))
        except InvalidRequirement:
            continue
        pins = [each.version for each in requirement.specifier if each.operator == "=="]
        if requirement.name == package and pins:
            return pins[0]
    return None
