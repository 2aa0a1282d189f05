"""Aliases of modules that have moved, so that notebooks of earlier years can import them.

Notebooks and scoring scripts of 2018 and 2019 import joblib from ``sklearn.externals``, and
models that were saved then name classes by their former modules in scikit-learn. :func:`install`
makes those names refer to the present modules, with a warning.

``exec`` puts a copy of this file where Python runs it at its start (``sitecustomize``): any
Python of the machine, so it imports the standard library alone and uses none of its new features.
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
STAND_INS = "MNIST_DEPLOY_STAND_INS"
FALLBACK_MODULES = "MNIST_DEPLOY_FALLBACK_MODULES"


class Aliases(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds a module under another name than its own.

    By rule, and only where the name itself is not found: ``sklearn.externals.x`` is the
    package ``x``; ``sklearn.x.y`` is ``sklearn.x._y``, whatever underscores there are (so
    ``cluster.k_means_`` is ``cluster._kmeans``).

    Parameters
    ----------
    stand_ins : mapping of str to str
        Aliases, and the modules that they refer to, even where the name itself could be found.
    fallback_modules : mapping of str to str
        Names that lead elsewhere only if there is no module of that name.
    """

    def __init__(
        self, stand_ins: Mapping[str, str], fallback_modules: Mapping[str, str] | None = None
    ) -> None:
        self._same = dict(stand_ins)  # an alias, and the module that it is
        self._fallback_modules = dict(fallback_modules or {})
        self._quiet = frozenset(stand_ins) | frozenset(self._fallback_modules)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        package, _, name = fullname.rpartition(".")
        if fullname in self._fallback_modules and not PathFinder.find_spec(fullname):
            origin = self._same[fullname] = self._fallback_modules[fullname]
        elif fullname in self._same:
            origin = self._same[fullname]
        elif package in self._same:  # else it would be imported a second time, as another module
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
        if spec.name in self._same:  # the import system has just put the alias's spec there
            module.__spec__ = spec.loader_state
            return
        # Some classes did not move to the twin: the names of the package are added.
        assert spec.parent is not None
        assert spec.origin is not None
        package, twin = sys.modules[spec.parent], sys.modules[spec.origin]
        names = {name: getattr(package, name) for name in package.__all__}
        names.update((name, value) for name, value in vars(twin).items() if name[:2] != "__")
        vars(module).update(names)


def install(
    stand_ins: Mapping[str, str] | None = None, fallback_modules: Mapping[str, str] | None = None
) -> None:
    """Add the aliases to the import system of this process.

    They come before all other finders: a module below an alias would else be imported a second
    time, as another module than the one that is in use.
    """
    if not any(isinstance(finder, Aliases) for finder in sys.meta_path):
        sys.meta_path.insert(0, Aliases(stand_ins or {}, fallback_modules))


def _read_variable(name: str) -> dict[str, str]:
    """The modules that a variable of the environment names."""
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
    install(_read_variable(STAND_INS), _read_variable(FALLBACK_MODULES))
    _run_hidden_sitecustomize()
