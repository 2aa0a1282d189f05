"""MNIST files on disk: read and checked, recognised by content, paired up, written whole."""

from __future__ import annotations

import gzip
import hashlib
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

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
_KIND_OF = {
    **dict.fromkeys(GENUINE.values(), "genuine"),
    **dict.fromkeys(SAMPLE.values(), "sample"),
}
_BEST_FIRST = ("genuine", "own", "sample", "incomplete", "damaged")


@dataclass(frozen=True)
class Pair:
    """The images and labels of one split, side by side in one folder.

    Attributes
    ----------
    kind : str
        "genuine", "sample" or "own": whole. "incomplete": nothing but genuine or sample files,
        but one is missing or they do not belong together. "damaged": the same of other files.
    count : int
        Images in it.
    problem : str
        What is wrong, empty if it is whole.
    """

    images: Path
    labels: Path
    kind: str
    count: int
    problem: str


def find_pairs(data_dir: StrPath, split: Split) -> list[Pair]:
    """Find every pair of images and labels under a folder, the best first."""
    pairs = []
    for names in NAMES[split]:
        folders = {path.parent for name in names for path in Path(data_dir).rglob(name)}
        pairs += [_judge(folder / names[0], folder / names[1]) for folder in sorted(folders)]
    return sorted(pairs, key=lambda pair: _BEST_FIRST.index(pair.kind))


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


def _judge(images: Path, labels: Path) -> Pair:
    kinds, counts, problem = [], [], ""
    for path, label in ((images, False), (labels, True)):
        try:
            status = path.stat()
            kind, count = _inspect(path, label, status.st_size, status.st_mtime_ns)
        except FileNotFoundError:
            problem = f"{path} is missing."
            continue
        except DataError as error:
            kind, count, problem = "damaged", 0, str(error)
        kinds.append(kind)
        counts.append(count)
    if not problem and counts[0] != counts[1]:
        problem = f"{images} holds {counts[0]} images, but {labels} {counts[1]} labels."
    if problem:
        kind = "incomplete" if set(kinds) <= {"genuine", "sample"} else "damaged"
    else:
        kind = kinds[0] if kinds[0] == kinds[1] else "own"
    return Pair(images, labels, kind, max(counts, default=0), problem)


@lru_cache(maxsize=64)
def _inspect(path: Path, label: bool, size: int, mtime_ns: int) -> tuple[str, int]:
    """Tell kind and count of a file; its size and time in the arguments renew the cache."""
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
