"""Prevents scikit-learn from importing pandas and pyarrow at its own import.

scikit-learn imports both to find out whether they are installed. pandas takes 60 MB, and pyarrow
starts a thread, after which a process cannot be forked. Imports by scripts are not affected, nor
the import by scikit-learn when it gets a data frame.
"""

from __future__ import annotations

import importlib.abc
import sys
from collections.abc import Sequence
from types import ModuleType


class NoPandas(importlib.abc.MetaPathFinder):
    """Hides both modules from the import statements at the top of scikit-learn's modules."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> None:
        if fullname not in ("pandas", "pyarrow"):
            return
        frame = sys._getframe(1)
        while frame.f_back and frame.f_globals.get("__name__", "").startswith("importlib."):
            frame = frame.f_back
        module = frame.f_globals.get("__name__", "")
        if frame.f_code.co_name == "<module>" and module.startswith("sklearn."):
            raise ModuleNotFoundError("hidden from scikit-learn's own imports", name=fullname)


def install() -> None:
    if not any(isinstance(finder, NoPandas) for finder in sys.meta_path):
        sys.meta_path.insert(0, NoPandas())
