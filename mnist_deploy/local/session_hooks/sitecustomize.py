"""Installs the import hooks at the start of a Python process; copied beside the hooks' package."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from importlib.machinery import PathFinder
from importlib.util import module_from_spec


def run_next_sitecustomize() -> None:
    """Run the ``sitecustomize`` of the machine that this file hides, if there is one."""
    here = os.path.dirname(os.path.abspath(__file__))
    paths = [os.path.abspath(path) for path in sys.path]
    later = sys.path[paths.index(here) + 1 :] if here in paths else []
    spec = PathFinder.find_spec("sitecustomize", later)
    if spec is not None and spec.loader is not None:
        spec.loader.exec_module(module_from_spec(spec))


if __name__ == "sitecustomize":
    import_module("mnist_deploy_session_hooks").install()
    run_next_sitecustomize()
