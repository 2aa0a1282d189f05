"""Stands in for ``azureml.opendatasets`` where that is not installed, or has no network.

Inside ``python -m mnist_deploy.local exec``, and nowhere else, a notebook's
``from azureml.opendatasets import MNIST`` leads here in these two cases. The files are those of
:func:`mnist_deploy.download_mnist`, so that the sample serves where nothing else can be had.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from ..errors import DataError
from . import download_mnist
from .files import find_files
from .sources import GENUINE

# Where azureml-opendatasets puts each file: under its address, as one name for each part.
FOLDER = "https%3A/%2Fazureopendatastorage.azurefd.net/mnist"
DATA_VARIABLE = "MNIST_DEPLOY_DATA"
STAND_INS_VARIABLE = "MNIST_DEPLOY_STAND_INS"
_PREFIXES = {"all": ("train-", "t10k-"), "train": ("train-",), "test": ("t10k-",)}


class MNIST:
    """The handwritten digits, as far as the tutorial asks Azure Open Datasets for them."""

    @staticmethod
    def get_file_dataset(
        dataset_filter: str = "all", enable_telemetry: bool = True
    ) -> MnistFileDataset:
        """The four files, or those of one split: "all", "train" or "test". Sends nothing."""
        return MnistFileDataset(_PREFIXES[dataset_filter])

    @staticmethod
    def get_tabular_dataset(*_: object, **__: object) -> NoReturn:
        """Refused: the tutorial does not use it."""
        raise _not_supported("MNIST.get_tabular_dataset()")


class MnistFileDataset:
    """What the tutorial does with a FileDataset: download the files that begin so."""

    def __init__(self, prefixes: tuple[str, ...]) -> None:
        self._names = [name for name in GENUINE if name.startswith(prefixes)]

    def to_path(self) -> list[str]:
        """The files' paths below the folder that they are downloaded to."""
        return [f"/{FOLDER}/{name}" for name in self._names]

    def download(
        self,
        target_path: str | os.PathLike[str] | None = None,
        overwrite: bool = False,
        ignore_not_found: bool = False,
    ) -> list[str]:
        """Put the files below a folder, by default a new temporary one, and return their paths.

        Genuine files that lie in their places are kept, never replaced by the sample. A file
        that must not be overwritten is a UserErrorException, as of the genuine library.
        """
        folder = Path(target_path or tempfile.mkdtemp()).absolute() / FOLDER
        paths = [folder / name for name in self._names]
        present = [path for path in paths if path.exists()]
        if present and not overwrite:
            from azureml.exceptions import UserErrorException

            raise UserErrorException(f"{present[0]} is there already; pass overwrite=True.")
        with suppress(DataError):
            files = find_files(folder)
            if files is not None and files.kind == "genuine":
                return list(map(str, paths))
        sources = _fetch()
        folder.mkdir(parents=True, exist_ok=True)
        return [str(shutil.copyfile(sources[path.name], path)) for path in paths]

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("_"):
            raise AttributeError(name)
        raise _not_supported(f"{name}() of this dataset")


def _fetch() -> dict[str, Path]:
    """The four files by their published names, wherever they lie."""
    # download_mnist tries the genuine azureml.opendatasets, in another process: not this again.
    led_here = os.environ.pop(STAND_INS_VARIABLE, "")
    try:
        files = download_mnist(os.environ.get(DATA_VARIABLE, "data"))
    finally:
        os.environ[STAND_INS_VARIABLE] = led_here
    found = (files.train_images, files.train_labels, files.test_images, files.test_labels)
    return dict(zip(GENUINE, found, strict=True))


def _not_supported(what: str) -> NotImplementedError:
    return NotImplementedError(
        f"501 NotImplemented: the local workspace of mnist_deploy does not support {what}. It "
        "stands in for azureml.opendatasets, which is not installed here or has no network; "
        "with both, exec leaves the genuine library alone."
    )


def __getattr__(name: str) -> NoReturn:
    if name.startswith("__"):
        raise AttributeError(name)
    raise ImportError(f"azureml.opendatasets.{name} cannot be had: its stand-in knows MNIST only.")
