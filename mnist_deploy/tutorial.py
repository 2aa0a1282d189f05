"""Where the files of the tutorial lie, and what it hands over to the local workspace."""

from __future__ import annotations

from pathlib import Path

# What the local workspace adds for the tutorial: an entry point in pyproject.toml hands it over.
LOCAL_WORKSPACE = {
    "prepare": "mnist_deploy.part_one",
    "stand_ins": {"azureml.opendatasets": "mnist_deploy.data.open_datasets"},
    "data_host": "https://azureopendatastorage.blob.core.windows.net/",
    "shown": ["accuracy", "data"],
    "page": str(Path(__file__).parent / "pad"),  # to draw a digit on
}


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
