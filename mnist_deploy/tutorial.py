"""Where the files of the tutorial lie: score.py, environment.yml and the notebooks."""

from __future__ import annotations

from pathlib import Path


def tutorial_file(name: str) -> Path:
    """The path of a file of the tutorial, in a clone of the project or in an installed wheel.

    Parameters
    ----------
    name : str
        Such as ``score.py``, ``environment.yml`` or ``notebooks/…``.

    Returns
    -------
    Path

    Raises
    ------
    FileNotFoundError
        There is no such file.
    """
    package = Path(__file__).parent
    for folder in (package.parent, package / "tutorial_files"):
        if (folder / "environment.yml").is_file() and (folder / name).exists():
            return folder / name
    raise FileNotFoundError(f"{name} is no file of the tutorial.")
