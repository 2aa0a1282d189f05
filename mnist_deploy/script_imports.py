"""Whether an environment installs what a scoring script imports, as far as can be known here."""

from __future__ import annotations

import ast
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from packaging.requirements import Requirement
from packaging.utils import NormalizedName, canonicalize_name

from .scoring_environment import list_requirements

if TYPE_CHECKING:
    from azureml.core import Environment

_SERVER = "azureml_inference_server_http"  # calls the script
# Only containers have it; this is what it brings.
_METAPACKAGES = {"azureml-defaults": ("azureml-core", "azureml-inference-server-http")}


def find_missing(tree: ast.Module, folder: Path, environment: Environment) -> list[str]:
    """Find the modules that a script needs and its environment does not bring.

    Parameters
    ----------
    tree : ast.Module
        The script.
    folder : Path
        Where the script lies: what lies beside it is no package.
    environment : azureml.core.Environment
        One that lists no packages may have an image of its own, and is not judged.

    Returns
    -------
    list of str
        Only modules that are installed here, because of others it is not known what brings them.
    """
    asked = [requirement.name for requirement in list_requirements(environment)]
    modules = {
        module
        for module in (*imported_modules(tree), _SERVER)
        if module not in sys.stdlib_module_names
        and not (folder / module).is_dir()
        and not (folder / f"{module}.py").is_file()
    }
    if not asked:
        return []
    brought = _with_dependencies(asked)
    providers = list_providers()
    return sorted(
        module for module in modules & providers.keys() if brought.isdisjoint(providers[module])
    )


def imported_modules(node: ast.AST) -> Iterator[str]:
    """The top-level names of a script's imports, but those that it tries only."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in child.names)
        elif isinstance(child, ast.ImportFrom) and child.module and not child.level:
            yield child.module.partition(".")[0]
        elif not isinstance(child, ast.Try):
            yield from imported_modules(child)


@cache
def list_providers() -> Mapping[str, set[str]]:
    """From top-level modules to the distributions that hold them, by the files of each.

    `importlib.metadata.packages_distributions` of Python 3.10 leaves many of them out.
    """
    providers: defaultdict[str, set[str]] = defaultdict(set)
    for distribution in metadata.distributions():
        name = distribution.metadata["Name"] or ""  # missing where an installation was cut off
        for file in distribution.files or ():
            if file.suffix in (".py", ".so"):
                providers[file.parts[0].partition(".")[0]].add(canonicalize_name(name))
    return providers


def _with_dependencies(names: Iterable[str]) -> set[str]:
    """The distributions of these names and all that they require, as installed here."""
    found: set[str] = set()
    waiting = [canonicalize_name(name) for name in names]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += _required_by(name)
    return found


@cache
def _required_by(name: NormalizedName) -> tuple[NormalizedName, ...]:
    try:
        requirements = [Requirement(line) for line in metadata.requires(name) or ()]
    except metadata.PackageNotFoundError:
        requirements = []
    needed = (
        each for each in requirements if not each.marker or each.marker.evaluate({"extra": ""})
    )
    names = (*_METAPACKAGES.get(name, ()), *(each.name for each in needed))
    return tuple(map(canonicalize_name, names))
