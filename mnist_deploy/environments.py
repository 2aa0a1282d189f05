"""The environment that a model is scored in: fetch it, build it, read its pins."""

from __future__ import annotations

import os
import platform
import re
import tempfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from .errors import EnvironmentNotFound
from .sdk import ANSWER_LIMIT, Deadline, asking, registered_are
from .tutorial import tutorial_file

if TYPE_CHECKING:
    from azureml.core import Environment, Workspace

ENVIRONMENT_NAME = "tutorial-env"


def fetch_environment(
    ws: Workspace, name: str = ENVIRONMENT_NAME, version: str | None = None
) -> Environment:
    """Fetch a registered environment, by default the newest version.

    Wraps the tutorial's ``Environment.get``, which asked for version 1 and so missed any later one.

    Parameters
    ----------
    ws : azureml.core.Workspace
    name : str
    version : str, optional

    Returns
    -------
    azureml.core.Environment

    Raises
    ------
    EnvironmentNotFound
        It is not registered; says which are.
    WorkspaceError
        The workspace does not answer.
    """
    from azureml.core import Environment

    with asking(ws, f"fetch the environment {name!r}"):
        try:
            return Deadline(ANSWER_LIMIT).call(Environment.get, ws, name, version=version)
        except Exception as error:  # the SDK raises a bare one here
            if "Code: 404" not in str(error):
                raise
        known = Deadline(ANSWER_LIMIT).call(Environment.list, ws).values()
    own = (f"{each.name}:{each.version}" for each in known if not each.name.startswith("AzureML-"))
    raise EnvironmentNotFound(
        f"{'Environment' if version is None else f'Version {version} of environment'} {name!r} is "
        f"not registered in workspace {ws.name!r}. {registered_are(own)} "
        "prepare_workspace(ws) registers the tutorial's."
    )


def build_scoring_environment(
    name: str = ENVIRONMENT_NAME,
    file: str | os.PathLike[str] | None = None,
    *,
    scikit_learn: str | None = None,
) -> Environment:
    """Build the environment of environment.yml, with what is installed here as its pins.

    A model is sure to load only where the versions that saved it are installed: with their
    pins, model and environment agree. What is not installed here keeps the file's own pin.

    Parameters
    ----------
    name : str
        Under which it will be registered.
    file : path-like, optional
        A conda specification; by default the tutorial's.
    scikit_learn : str, optional
        The version that saved the model, if it is not the one installed here.

    Returns
    -------
    azureml.core.Environment
        Not registered yet.
    """
    from azureml.core import Environment

    text = Path(file or tutorial_file("environment.yml")).read_text(encoding="utf-8")
    specification = yaml.safe_load(text)
    specification["name"] = name
    known = {"scikit-learn": scikit_learn} if scikit_learn else {}
    specification["dependencies"] = [_pin(entry, known) for entry in specification["dependencies"]]
    with tempfile.TemporaryDirectory() as folder:
        pinned = Path(folder) / "environment.yml"
        pinned.write_text(yaml.safe_dump(specification, sort_keys=False), encoding="utf-8")
        return Environment.from_conda_specification(name, str(pinned))


def _pin(entry: Any, known: dict[str, str]) -> Any:
    if isinstance(entry, dict):
        return {"pip": [_pin_requirement(line, known) for line in entry["pip"]]}
    if re.match(r"python\b(?!-)", entry):
        return "python=" + ".".join(platform.python_version_tuple()[:2])
    return entry


def _pin_requirement(line: str, known: dict[str, str]) -> str:
    try:
        name = canonicalize_name(Requirement(line).name)
        return f"{name}=={known.get(name) or metadata.version(name)}"
    except (InvalidRequirement, metadata.PackageNotFoundError):
        return line  # an option of pip's, or a package that only the container has


def find_requirement(environment: Environment, package: str) -> Requirement | None:
    """What an environment asks of a package, in pip's words; None if it does not name it."""
    for requirement in list_requirements(environment):
        if canonicalize_name(requirement.name) == package:
            return requirement
    return None


def pinned_version(environment: Environment, package: str) -> str | None:
    """The version that an environment pins a package to (``==``, conda's ``=``), or None."""
    requirement = find_requirement(environment, package)
    pins = requirement.specifier if requirement else ()
    exact = (pin.version.removesuffix(".*") for pin in pins if pin.operator in ("==", "==="))
    return next(exact, None)


def list_requirements(environment: Environment) -> Iterator[Requirement]:
    """What an environment installs, in pip's words; nothing where its image does that itself."""
    dependencies = environment.python.conda_dependencies
    if environment.python.user_managed_dependencies or dependencies is None:
        return
    conda = map(_conda_to_pip, dependencies.conda_packages)
    for line in [*dependencies.pip_packages, *conda]:
        try:
            yield Requirement(line)
        except InvalidRequirement:
            continue


def _conda_to_pip(entry: str) -> str:
    """``channel::name=1.5=build``, ``name=1.5`` and ``name 1.5``: 1.5 and all that begins so."""
    entry = entry.split("::")[-1]
    name = re.split(r"[\s=<>!~]", entry, maxsplit=1)[0]
    version = entry.removeprefix(name).strip()
    if re.match(r"=?[\w.*]", version):
        version = re.split(r"[\s=]", version.lstrip("="))[0]
        version = f"=={version.removesuffix('.*')}.*"
    return name + version
