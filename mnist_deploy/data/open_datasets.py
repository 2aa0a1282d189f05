"""Offline substitute for ``azureml.opendatasets`` where that is not installed, or has no network.

Only within ``python -m mnist_deploy.local exec`` does ``from azureml.opendatasets import MNIST``
import this module, in these two cases. The files are those of
:func:`mnist_deploy.download_mnist`, with the sample as the last resort.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

from ..errors import DataError
from . import download_mnist
from .files import find_files
from .sources import GENUINE

# The folder that azureml-opendatasets downloads to: the URL, with one name for each part.
FOLDER = "https%3A/%2Fazureopendatastorage.azurefd.net/mnist"
DATA_VARIABLE = "MNIST_DEPLOY_DATA"
_PREFIXES = {"all": ("train-", "t10k-"), "train": ("train-",), "test": ("t10k-",)}


class MNIST:
    """The part of ``azureml.opendatasets.MNIST`` that the tutorial uses."""

    @staticmethod
    def get_file_dataset(
        dataset_filter: str = "all", enable_telemetry: bool = True
    ) -> MnistFileDataset:
        """The four files, or those of one split: "all", "train" or "test". Sends no request."""
        return MnistFileDataset(_PREFIXES[dataset_filter])

    @staticmethod
    def get_tabular_dataset(*_: object, **__: object) -> NoReturn:
        """Rejected: the tutorial does not use it."""
        raise _not_supported("MNIST.get_tabular_dataset()")


class MnistFileDataset:
    """The part of a FileDataset that the tutorial uses: download the files with a prefix."""

    def __init__(self, prefixes: tuple[str, ...]) -> None:
        self._names = [name for name in GENUINE if name.startswith(prefixes)]

    def to_path(self) -> list[str]:
        """The paths of the files below the target folder."""
        return [f"/{FOLDER}/{name}" for name in self._names]

    def register(
        self,
        workspace: Any,
        name: str,
        description: str | None = None,
        tags: dict[str, str] | None = None,
        create_new_version: bool = False,
    ) -> Any:
        """Upload the files to the workspace's data store, and register them there.

        Returns
        -------
        azureml.data.FileDataset
            The SDK's own class, so that the data set can be the input of a run.
        """
        from azureml.core import Dataset

        target = (workspace.get_default_datastore(), "mnist")
        with tempfile.TemporaryDirectory() as folder:
            self.download(folder, overwrite=True)
            dataset = Dataset.File.upload_directory(
                folder, target, overwrite=True, show_progress=False
            )
        return dataset.register(workspace, name, description, tags, create_new_version)

    def download(
        self,
        target_path: str | os.PathLike[str] | None = None,
        overwrite: bool = False,
        ignore_not_found: bool = False,
    ) -> list[str]:
        """Copy the files below a folder, by default a temporary one, and return their paths.

        Files of the MNIST database in that folder are never replaced by the sample. Raises
        UserErrorException for an existing file without `overwrite`, as azureml-opendatasets does.
        """
        folder = Path(target_path or tempfile.mkdtemp()).absolute() / FOLDER
        paths = [folder / name for name in self._names]
        present = [path for path in paths if path.exists()]
        if present and not overwrite:
            from azureml.exceptions import UserErrorException

            raise UserErrorException(f"{present[0]} exists; pass overwrite=True.")
        with suppress(DataError):
            files = find_files(folder)
            if files is not None and files.kind == "genuine":
                return list(map(str, paths))
        sources = fetch_files()
        folder.mkdir(parents=True, exist_ok=True)
        return [str(shutil.copyfile(sources[path.name], path)) for path in paths]

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("_"):
            raise AttributeError(name)
        raise _not_supported(f"{name}() of this dataset")


def fetch_files() -> dict[str, Path]:
    """Download MNIST to the folder of ``--data-dir``; return the files by their published names."""
    files = download_mnist(os.environ.get(DATA_VARIABLE, "data"))
    found = (files.train_images, files.train_labels, files.test_images, files.test_labels)
    return dict(zip(GENUINE, found, strict=True))


def _not_supported(what: str) -> NotImplementedError:
    return NotImplementedError(
        f"501 NotImplemented: the local workspace of mnist_deploy does not support {what}. This is "
        "the offline substitute for azureml.opendatasets, which is not installed or has no "
        "network; otherwise exec uses azureml.opendatasets itself."
    )


def __getattr__(name: str) -> NoReturn:
    if name.startswith("__"):
        raise AttributeError(name)
    raise ImportError(
        f"azureml.opendatasets.{name} is not available: the offline substitute has MNIST only. "
        "Other data sets require azureml-opendatasets and a network."
    )
