"""The environment that a model is scored in: fetch it, build it, read its pins."""

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
_NEWEST_PYTHON = (3, 13)  # that azureml-defaults has wheels for; pickles do not mind


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

    with workspace_call(ws, f"fetch the environment {name!r}"):
        try:
            if name:  # an environment without one is no error of the SDK's
                return Deadline().call(Environment.get, ws, name, version=version)
        except Exception as error:  # the SDK raises a bare one here
            if "Code: 404" not in str(error):
                raise
        known = Deadline().call(Environment.list, ws).values()
    own = (f"{each.name}:{each.version}" for each in known if not each.name.startswith("AzureML-"))
    raise EnvironmentNotFound(not_registered(ws, f"environment {name!r}", version, own))


def build_scoring_environment(
    name: str = ENVIRONMENT_NAME, *, scikit_learn: str | None = None
) -> Environment:
    """Build the environment of environment.yml, with what is installed here as its pins.

    A model is sure to load only where the versions that saved it are installed: with their
    pins, and the scikit-learn that saved the model if that is another one, model and environment
    agree. What is not installed here keeps the file's own pin. It is not registered yet.
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
    """What an environment of either SDK asks of a package, in pip's words.

    None if it does not name it, or if its image installs its packages itself.
    """
    for line in _list_requirements(environment):
        with suppress(InvalidRequirement):
            requirement = Requirement(line)
            if canonicalize_name(requirement.name) == package:
                return requirement
    return None


def _list_requirements(environment: Any) -> list[str]:
    if hasattr(environment, "conda_file"):  # SDK v2's
        entries = (environment.conda_file or {}).get("dependencies") or []
        pip = [line for each in entries if isinstance(each, dict) for line in each.get("pip") or []]
        return [*pip, *(_conda_to_pip(each) for each in entries if isinstance(each, str))]
    dependencies = environment.python.conda_dependencies
    if environment.python.user_managed_dependencies or dependencies is None:
        return []
    return [*dependencies.pip_packages, *map(_conda_to_pip, dependencies.conda_packages)]


def pinned_version(environment: Environment, package: str) -> str | None:
    """The version that an environment pins a package to (``==``, conda's ``=``), or None."""
    requirement = find_requirement(environment, package)
    pins = requirement.specifier if requirement else ()
    exact = (pin.version.removesuffix(".*") for pin in pins if pin.operator in ("==", "==="))
    return next(exact, None)


def _conda_to_pip(entry: str) -> str:
    """``channel::name=1.5=build``, ``name=1.5`` and ``name 1.5``: 1.5 and all that begins so."""
    entry = entry.split("::")[-1]
    name = re.split(r"[\s=<>!~]", entry, maxsplit=1)[0]
    version = entry.removeprefix(name).strip()
    if re.match(r"=?[\w.*]", version):
        version = re.split(r"[\s=]", version.lstrip("="))[0]
        version = f"=={version.removesuffix('.*')}.*"
    return name + version
