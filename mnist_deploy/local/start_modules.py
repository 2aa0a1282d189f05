"""The modules that each Python process of `exec`, and of a run, loads at its start."""

from __future__ import annotations

import shutil
from pathlib import Path

from .scoring import aliases
from .session_hooks.copies import write_hooks


def write_start_modules(folder: Path) -> list[Path]:
    """Write these modules below `folder`; return the folders for PYTHONPATH.

    The first maps module names of old notebooks and pickles to those of today, the second changes
    modules as they are imported: see `scoring.aliases` and `session_hooks`.
    """
    names = folder / "aliases"
    names.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(aliases.__file__, names / "sitecustomize.py")
    return [names, write_hooks(folder / "hooks")]
