"""The environment of a model: fetch it, build it, read the versions that it pins."""

from __future__ import annotations

import re
import sys
import tempfile
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from .errors import EnvironmentNotFound
from .sdk import Deadline, not_registered, workspace_call
from .tutorial import tutorial_file

if TYPE_CHECKING:
    from azureml.core import Environment, Workspace

ENVIRONMENT_NAME = "tutorial-env"
_NEWEST_PYTHON = (3, 13)  # that has wheels of azureml-defaults; pickles do not depend on Python's


def fetch_environment(
    ws: Workspace, name: str = ENVIRONMENT_NAME, version: str | None = None
) -> Environment:
    """Fetch a registered environment, by default the newest version.

    Wraps the tutorial's ``Environment.get``, which requests version 1 and ignores later ones.

    Parameters
    ----------
    ws : azureml.core.Workspace
    name : str
    version : str, optional
        By default the newest.

    Returns
    -------
    azureml.core.Environment

    Raises
    ------
    EnvironmentNotFound
        The environment is not registered; the message lists the registered environments.
    WorkspaceError
        The workspace does not respond.
    """
    from azureml.core import Environment

    with workspace_call(ws, f"fetch the environment {name!r}"):
        try:
            if name:  # the SDK accepts an empty name
                return Deadline().call(Environment.get, ws, name, version=version)
        except Exception as error:  # the SDK raises a plain Exception
            if "Code: 404" not in str(error):
                raise
        known = Deadline().call(Environment.list, ws).values()
    names = (
        f"{each.name}:{each.version}" for each in known if not each.name.startswith("AzureML-")
    )
    raise EnvironmentNotFound(not_registered(ws, f"environment {name!r}", version, names))


def build_scoring_environment(
    name: str = ENVIRONMENT_NAME, *, scikit_learn: str | None = None
) -> Environment:
    """Build the environment of environment.yml, with the installed versions as pins.

    A model loads reliably only with the versions that saved it. `scikit_learn` is the version that
    saved the model, if it differs from the installed one. A package that is not installed keeps
    the pin of the file. The environment is not registered.
    """
    from azureml.core import Environment

    def pin(line: re.Match) -> str:
        if line["name"] == "python":
            return "- python={}.{}".format(*min(sys.version_info[:2], _NEWEST_PYTHON))
        if line["name"] == "scikit-learn" and scikit_learn:
            return f"- scikit-learn=={scikit_learn}"
        try:
            return f"- {line['name']}=={metadata.version(line['name'])}"
        except metadata.PackageNotFoundError:
            return line[0]

    text = tutorial_file("environment.yml").read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory() as folder:
        pinned = Path(folder) / "environment.yml"
        pinned.write_text(re.sub(r"- (?P<name>python(?==)|[\w-]+(?===)).*", pin, text))
        return Environment.from_conda_specification(name, str(pinned))


def find_requirement(environment: Environment, package: str) -> Requirement | None:
    """Return the requirement for a package in an environment of SDK v1 or v2, in pip's syntax.

    None if the environment does not name the package, or if the packages are part of the image.
    """
    for line in _list_requirements(environment):
        with suppress(InvalidRequirement):
            requirement = Requirement(line)
            if canonicalize_name(requirement.name) == package:
                return requirement
    return None


def _list_requirements(environment: Any) -> list[str]:
    if hasattr(environment, "conda_file"):  # of SDK v2
        entries = (environment.conda_file or {}).get("dependencies") or []
        pip = [line for each in entries if isinstance(each, dict) for line in each.get("pip") or []]
        return [*pip, *(_conda_to_pip(each) for each in entries if isinstance(each, str))]
    dependencies = environment.python.conda_dependencies
    if environment.python.user_managed_dependencies or dependencies is None:
        return []
    return [*dependencies.pip_packages, *map(_conda_to_pip, dependencies.conda_packages)]


def pinned_version(environment: Environment, package: str) -> str | None:
    """The version to which an environment pins a package (``==``, conda's ``=``), or None."""
    requirement = find_requirement(environment, package)
    pins = requirement.specifier if requirement else ()
    exact = (pin.version.removesuffix(".*") for pin in pins if pin.operator in ("==", "==="))
    return next(exact, None)


def _conda_to_pip(entry: str) -> str:
    """Convert ``channel::name=1.5=build``, ``name=1.5`` and ``name 1.5`` to ``name==1.5.*``."""
    entry = entry.split("::")[-1]
    name = re.split(r"[\s=<>!~]", entry, maxsplit=1)[0]
    version = entry.removeprefix(name).strip()
    if re.match(r"=?[\w.*]", version):
        version = re.split(r"[\s=]", version.lstrip("="))[0]
        version = f"=={version.removesuffix('.*')}.*"
    return name + version
