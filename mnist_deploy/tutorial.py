"""Find the files of the tutorial; declare what the tutorial adds to the local workspace."""

from __future__ import annotations

from pathlib import Path

# The entry point "mnist_deploy.local" in pyproject.toml. Its fields are those of `Tutorial` in
# mnist_deploy/local/cli/tutorial.py.
LOCAL_WORKSPACE = {
    "prepare": "mnist_deploy.part_one",
    "offline_substitutes": {"azureml.opendatasets": "mnist_deploy.data.open_datasets"},
    "fallback_modules": {"utils": "mnist_deploy.data.tutorial_utils"},
    "data_host": "https://azureopendatastorage.blob.core.windows.net/",
    "shown_properties": ["accuracy", "data"],
    "page": str(Path(__file__).parent / "pad"),  # the drawing pad
}


def tutorial_file(name: str) -> Path:
    """Return the path of a file of the tutorial, in a clone of the project or an installed wheel.

    Parameters
    ----------
    name : str
        ``score.py``, ``environment.yml`` or ``notebooks/...``.

    Returns
    -------
    Path

    Raises
    ------
    FileNotFoundError
        The tutorial has no such file.
    """
    package = Path(__file__).parent
    for folder in (package.parent, package / "tutorial_files"):
        if (folder / "environment.yml").is_file() and (folder / name).exists():
            return folder / name
    raise FileNotFoundError(
        f"{name} is not a file of the tutorial. Expected score.py, environment.yml or a file below "
        "notebooks/."
    )
