"""Spares a scoring process the 60 MB of pandas that scikit-learn imports and does not use.

While its modules are imported, scikit-learn tries to import pandas and pyarrow, just to know
whether they are there; and pyarrow starts a thread, after which nothing can be forked. What a
script imports is not touched, nor what scikit-learn imports when it is given a data frame.
"""

from __future__ import annotations

import importlib.abc
import sys
from collections.abc import Sequence
from types import ModuleType


class NoPandas(importlib.abc.MetaPathFinder):
    """Says that there is neither, to the import statements on top of scikit-learn's modules."""

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
            raise ModuleNotFoundError("not for scikit-learn itself", name=fullname)


def install() -> None:
    if not any(isinstance(finder, NoPandas) for finder in sys.meta_path):
        sys.meta_path.insert(0, NoPandas())
