"""Modules of scikit-learn that have moved since the tutorial was written, under their old names.

Notebooks and scoring scripts of 2018 and 2019 import joblib from ``sklearn.externals``, and
models that were saved then name classes by where they lay. Importing this module and calling
:func:`install` makes those names lead to where the modules are now, with a warning.

``exec`` puts a copy of this file where Python runs it at its start (``sitecustomize``), so
it imports nothing but the standard library.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.util
import os
import sys
import warnings
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

MOVED = {
    "sklearn.externals.joblib": "joblib",
    "sklearn.linear_model.logistic": "sklearn.linear_model._logistic",
}


class OldNames(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds a module of `MOVED`, or below one of them, where it is now."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        for old, new in MOVED.items():
            is_gone = fullname == old and not PathFinder.find_spec(fullname, path)
            is_below = fullname.startswith(f"{old}.") and sys.modules[old] is sys.modules.get(new)
            if is_gone or is_below:
                current = new + fullname[len(old) :]
                return importlib.util.spec_from_loader(fullname, self, origin=current)
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
        # The import system has just put the old name's there.
        module.__spec__ = module.__spec__ and module.__spec__.loader_state


def install() -> None:
    """Make the old names known to this process, first of all: or what lies below an old name
    would be found a second time, as another module than the one that is in use."""
    if not any(isinstance(finder, OldNames) for finder in sys.meta_path):
        sys.meta_path.insert(0, OldNames())


def _run_the_other_sitecustomize() -> None:
    """Run the one that this file hides, where the machine has one."""
    folders = [p for p in sys.path if os.path.abspath(p or ".") != os.path.dirname(__file__)]
    spec = PathFinder.find_spec("sitecustomize", folders)
    if spec is not None and spec.loader is not None:
        spec.loader.exec_module(importlib.util.module_from_spec(spec))


if __name__ == "sitecustomize":
    install()
    _run_the_other_sitecustomize()
