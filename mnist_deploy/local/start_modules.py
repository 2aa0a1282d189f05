"""What Python processes of `exec` and of runs find on PATH, and load at their start."""

from __future__ import annotations

import shutil
import sys
import sysconfig
from pathlib import Path

from .scoring import aliases
from .session_hooks.copies import write_hooks


def write_start_modules(folder: Path) -> list[Path]:
    """Write these modules below `folder`; return the folders for PYTHONPATH.

    The first folder holds `scoring.aliases`, which maps the module names of old notebooks and
    pickles to present ones; the second holds `session_hooks`.
    """
    names = folder / "aliases"
    names.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(aliases.__file__, names / "sitecustomize.py")
    return [names, write_hooks(folder / "hooks")]


def program_folders() -> list[Path]:
    """Return the folders for PATH: of this Python, and of the programs installed with packages.

    Both are one folder in a virtual environment, and two on Windows without one.
    """
    folders = [Path(sys.executable).parent, Path(sysconfig.get_path("scripts"))]
    return list(dict.fromkeys(folders))
