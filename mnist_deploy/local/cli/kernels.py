"""Jupyter kernels of the names that notebooks require; each starts the running Python."""

from __future__ import annotations

import itertools
import json
import os
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

# The names that Azure's notebook servers have used.
AZURE_KERNELS = (
    "python3",
    "python36",
    "python3-azureml",
    "python38-azureml",
    "python38-azureml-pt-tf",
    "azureml_py36",
    "azureml_py38",
    "conda-env-azureml_py36-py",
    "conda-env-azureml_py38-py",
)
KERNEL_NAME = re.compile(r"[A-Za-z0-9._-]+")
MAX_DEPTH, MAX_FOLDERS, MAX_NOTEBOOKS = 3, 1000, 200  # of the search for notebooks


def find_notebooks(folder: Path) -> Iterator[Path]:
    """The notebooks in `folder` and in the folders below it, without hidden folders."""

    def walk() -> Iterator[Path]:
        for here, folders, files in itertools.islice(os.walk(folder), MAX_FOLDERS):
            is_deep = len(Path(here).relative_to(folder).parts) == MAX_DEPTH
            folders[:] = [] if is_deep else [name for name in folders if not name.startswith(".")]
            yield from (Path(here, name) for name in files if name.endswith(".ipynb"))

    return itertools.islice(walk(), MAX_NOTEBOOKS)


def kernel_of(notebook: Path) -> str | None:
    """The Python kernel that a notebook names; None if it names none, or another language's."""
    try:
        metadata = json.loads(notebook.read_text(encoding="utf-8"))["metadata"]
        name = metadata["kernelspec"]["name"]
        language = metadata["kernelspec"].get("language") or (
            metadata.get("language_info") or {}
        ).get("name", "python")
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    is_python = isinstance(name, str) and KERNEL_NAME.fullmatch(name) and language == "python"
    return name if is_python else None


def write_kernels(folder: Path, names: Iterable[str]) -> None:
    """Write a kernel for each of `names` below `folder`, which belongs on JUPYTER_PATH."""
    version = "{}.{}".format(*sys.version_info)
    for name in names:
        kernel = folder / "kernels" / name / "kernel.json"
        kernel.parent.mkdir(parents=True)
        document = {
            "argv": [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"],
            "display_name": f"Python {version} (in place of {name})",
            "language": "python",
            "metadata": {"debugger": True},
        }
        kernel.write_text(json.dumps(document), encoding="utf-8")
