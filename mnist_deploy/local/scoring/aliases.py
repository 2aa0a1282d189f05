"""Aliases for modules that were moved, so that notebooks of earlier years can import them.

Notebooks and scoring scripts of 2018 and 2019 import joblib from ``sklearn.externals``, and
models that were saved then name classes by their former modules in scikit-learn. :func:`install`
makes those names refer to the present modules, with a warning.

``exec`` puts a copy of this file on PYTHONPATH as ``sitecustomize``. Any Python of the machine may
run it at its start: it imports only the standard library, and supports old releases of Python.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.util
import os
import pkgutil
import sys
import warnings
from collections.abc import Mapping, Sequence
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

# Read by ``sitecustomize``: name=module, separated by commas.
SUBSTITUTES = "MNIST_DEPLOY_SUBSTITUTES"
FALLBACK_MODULES = "MNIST_DEPLOY_FALLBACK_MODULES"


class Aliases(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds a module under an alias.

    Two rules apply to names that are not found: ``sklearn.externals.x`` is the package ``x``, and
    ``sklearn.x.y`` is the private module of ``sklearn.x`` whose name differs from ``y`` only in
    underscores (``cluster.k_means_`` is ``cluster._kmeans``).

    Parameters
    ----------
    substitutes : mapping of str to str
        Alias -> module that is imported, even if a module with the alias exists.
    fallback_modules : mapping of str to str
        Alias -> module that is imported if no module with the alias exists.
    """

    def __init__(
        self, substitutes: Mapping[str, str], fallback_modules: Mapping[str, str] | None = None
    ) -> None:
        self._same = dict(substitutes)  # alias -> module
        self._fallback_modules = dict(fallback_modules or {})
        self._quiet = frozenset(substitutes) | frozenset(self._fallback_modules)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        package, _, name = fullname.rpartition(".")
        if fullname in self._fallback_modules and not PathFinder.find_spec(fullname):
            origin = self._same[fullname] = self._fallback_modules[fullname]
        elif fullname in self._same:
            origin = self._same[fullname]
        elif package in self._same:  # otherwise the module would be imported twice
            origin = self._same[fullname] = f"{self._same[package]}.{name}"
        elif not package.startswith("sklearn.") or PathFinder.find_spec(fullname, path):
            return None
        elif package == "sklearn.externals":
            if not PathFinder.find_spec(name):
                return None
            origin = self._same[fullname] = name
        else:
            bare = name.replace("_", "")
            private = (each for _, each, _ in pkgutil.iter_modules(path) if each.startswith("_"))
            twin = next((each for each in private if each.replace("_", "") == bare), None)
            if twin is None:
                return None
            origin = f"{package}.{twin}"
        return importlib.util.spec_from_loader(fullname, self, origin=origin)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        assert spec.origin is not None
        module = importlib.import_module(spec.origin)
        if spec.name not in self._quiet and spec.parent not in self._same:
            warnings.warn(
                f"scikit-learn has removed {spec.name}. The local workspace imports {spec.origin} "
                "instead; with a current scikit-learn on Azure the import would fail.",
                FutureWarning,
                stacklevel=2,
            )
        if spec.name not in self._same:
            return None
        spec.loader_state = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        spec = module.__spec__
        assert spec is not None
        if spec.name in self._same:  # undo the import system's assignment of the alias's spec
            module.__spec__ = spec.loader_state
            return
        # Some classes were not moved to the private module, but are names of the package.
        assert spec.parent is not None
        assert spec.origin is not None
        package, twin = sys.modules[spec.parent], sys.modules[spec.origin]
        names = {name: getattr(package, name) for name in package.__all__}
        names.update((name, value) for name, value in vars(twin).items() if name[:2] != "__")
        vars(module).update(names)


def install(
    substitutes: Mapping[str, str] | None = None, fallback_modules: Mapping[str, str] | None = None
) -> None:
    """Add the aliases to the import system of this process.

    The finder comes before all others: otherwise a module below an alias would be imported twice.
    """
    if not any(isinstance(finder, Aliases) for finder in sys.meta_path):
        sys.meta_path.insert(0, Aliases(substitutes or {}, fallback_modules))


def _read_variable(name: str) -> dict[str, str]:
    """The aliases in an environment variable, as ``name=module,…``."""
    pairs = (pair.split("=") for pair in os.environ.get(name, "").split(",") if pair)
    return {alias: module for alias, module in pairs}


def _run_hidden_sitecustomize() -> None:
    """Run the ``sitecustomize`` that this file hides, if there is one."""
    here = os.path.dirname(os.path.abspath(__file__))
    folders = [path for path in sys.path if os.path.abspath(path) != here]
    spec = PathFinder.find_spec("sitecustomize", folders)
    if spec is not None and spec.loader is not None:
        spec.loader.exec_module(importlib.util.module_from_spec(spec))


if __name__ == "sitecustomize":
    install(_read_variable(SUBSTITUTES), _read_variable(FALLBACK_MODULES))
    _run_hidden_sitecustomize()
