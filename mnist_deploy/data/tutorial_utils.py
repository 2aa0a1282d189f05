"""The module ``utils`` of part one of the tutorial: `load_data`.

``python -m mnist_deploy.local exec`` provides this module as ``utils`` to the tutorial's code,
unless that code has a module of the same name.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from . import load_data as load_file
from .files import EDITIONS, StrPath
from .open_datasets import fetch_files

__all__ = ["load_data"]


def load_data(filename: StrPath, label: bool = False) -> np.ndarray:
    """Read one gzipped IDX file; images (n, 784) or labels (n, 1), uint8.

    A file of MNIST that part one would have downloaded to ``./data``, such as
    ``./data/test-images.gz``, is read from the folder of ``--data-dir`` if it does not exist.
    """
    return load_file(_find_file(Path(filename)), label)


def _find_file(path: Path) -> Path:
    for names in EDITIONS:
        if path.name in names and not path.exists():
            return list(fetch_files().values())[names.index(path.name)]
    return path
