"""Module names that lead to other modules, so that notebooks of other years find theirs.

Notebooks and scoring scripts of 2018 and 2019 import joblib from ``sklearn.externals``, and
models that were saved then name classes by where they lay in scikit-learn. :func:`install`
makes those names lead to where the modules are now, with a warning.

``exec`` puts a copy of this file where Python runs it at its start (``sitecustomize``): any
Python of the machine, so it imports the standard library alone and does without its novelties.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.util
import os
import sys
import warnings
from collections.abc import Mapping, Sequence
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

MOVED = {
    "sklearn.externals.joblib": "joblib",
    "sklearn.linear_model.logistic": "sklearn.linear_model._logistic",
}
# Read by ``sitecustomize``: name=module, separated by commas.
STAND_INS = "MNIST_DEPLOY_STAND_INS"


class Aliases(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds a module under another name than its own.

    Parameters
    ----------
    stand_ins : mapping of str to str
        Names that lead elsewhere even if they could be found; those of `MOVED` do not.
    """

    def __init__(self, stand_ins: Mapping[str, str]) -> None:
        self._stand_ins = stand_ins
        self._aliases = {**MOVED, **stand_ins}

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        for alias, module in self._aliases.items():
            if not fullname.startswith(alias):
                continue
            below = fullname[len(alias) :]
            is_gone = alias in self._stand_ins or not PathFinder.find_spec(fullname, path)
            in_use = alias in sys.modules and sys.modules[alias] is sys.modules.get(module)
            if (is_gone and not below) or (in_use and below.startswith(".")):
                return importlib.util.spec_from_loader(fullname, self, origin=module + below)
        return None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        assert spec.origin is not None
        module = importlib.import_module(spec.origin)
        spec.loader_state = module.__spec__
        if spec.name in MOVED:
            warnings.warn(
                f"{spec.name} is no more: scikit-learn has long removed it. The local workspace "
                f"takes {spec.origin} instead; with today's scikit-learn on Azure it would fail.",
                FutureWarning,
                stacklevel=2,
            )
        return module

    def exec_module(self, module: ModuleType) -> None:
        # The import system has just put the alias's there.
        module.__spec__ = module.__spec__ and module.__spec__.loader_state


def install(stand_ins: Mapping[str, str] | None = None) -> None:
    """Make the aliases known to this process.

    They come first of all: what lies below an alias would else be found a second time, as
    another module than the one that is in use.
    """
    if not any(isinstance(finder, Aliases) for finder in sys.meta_path):
        sys.meta_path.insert(0, Aliases(stand_ins or {}))


def _run_the_other_sitecustomize() -> None:
    """Run the one that this file hides, where the machine has one."""
    here = os.path.dirname(os.path.abspath(__file__))
    folders = [path for path in sys.path if os.path.abspath(path) != here]
    spec = PathFinder.find_spec("sitecustomize", folders)
    if spec is not None and spec.loader is not None:
        spec.loader.exec_module(importlib.util.module_from_spec(spec))


if __name__ == "sitecustomize":
    named = [pair.split("=") for pair in os.environ.get(STAND_INS, "").split(",") if pair]
    install({alias: module for alias, module in named})
    _run_the_other_sitecustomize()
