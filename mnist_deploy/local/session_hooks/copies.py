"""Copies the hooks to a folder for PYTHONPATH."""

from __future__ import annotations

import shutil
from pathlib import Path

PACKAGE = "mnist_deploy_session_hooks"


def write_hooks(folder: Path) -> Path:
    """Write the hooks to a folder for PYTHONPATH; it is created if it is missing."""
    source = Path(__file__).parent
    shutil.copytree(
        source,
        folder / PACKAGE,
        dirs_exist_ok=True,
        ignore=shutil.ignore_patterns("__pycache__", "copies.py", "sitecustomize.py"),
    )
    shutil.copyfile(source / "sitecustomize.py", folder / "sitecustomize.py")
    return folder
