"""The bytes of artifacts as files, which are written atomically.

A blob's name is generated here and never comes from a request, which excludes path traversal.
"""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from ..host import filesystem

CHUNK = 1 << 20  # bytes


class Blobs:
    """Files of bytes, each under a name of 32 hexadecimal digits.

    Parameters
    ----------
    folder : Path
        The parent of one folder for complete blobs and one for blobs that are being written.
        Incomplete blobs of an earlier process are removed.
    durable : bool
        Flush each blob to the disk before it gets its name; otherwise the file system may hold
        complete blobs in memory.
    """

    def __init__(self, folder: Path, *, durable: bool = True) -> None:
        self._durable = durable
        self._whole = folder / "blobs"
        self._staged = folder / "staged"
        filesystem.remove_folder(self._staged)
        for private in (self._whole, self._staged):
            private.mkdir(mode=0o700, parents=True, exist_ok=True)

    def file(self, name: str) -> Path:
        """Return the path of a blob."""
        return self._whole / uuid.UUID(hex=name).hex

    def write(self, chunks: Iterable[bytes]) -> str:
        """Write a new blob atomically and return its name."""
        name = uuid.uuid4().hex
        self._write(self.file(name), chunks)
        if self._durable:
            filesystem.sync_folder(self._whole)
        return name

    def stage(self, upload: str, block: str, chunks: Iterable[bytes]) -> None:
        """Store one block of a large upload until :meth:`commit`."""
        file = self._block_file(upload, block)
        file.parent.mkdir(exist_ok=True)
        self._write(file, chunks)

    def commit(self, upload: str, blocks: Iterable[str]) -> str:
        """Join staged blocks, in the order given, into a new blob and return its name.

        Raises
        ------
        FileNotFoundError
            If a block was never staged.
        """
        files = [self._block_file(upload, block) for block in blocks]
        name = self.write(chunk for file in files for chunk in read_chunks(file))
        self.discard(upload)
        return name

    def discard(self, upload: str) -> None:
        """Remove the staged blocks of an upload."""
        filesystem.remove_folder(self._block_file(upload, "").parent)

    def remove(self, name: str) -> None:
        """Remove a blob; on Windows, a blob that is being read stays until :meth:`keep_only`."""
        filesystem.remove_file(self.file(name))

    def count(self) -> int:
        return sum(1 for _ in self._whole.iterdir())

    def keep_only(self, names: Collection[str]) -> None:
        """Remove all blobs except `names`."""
        for file in self._whole.iterdir():
            if file.name not in names:
                filesystem.remove_file(file)

    def _block_file(self, upload: str, block: str) -> Path:
        folder, file = (hashlib.sha256(part.encode()).hexdigest() for part in (upload, block))
        return self._staged / folder / file

    def _write(self, path: Path, chunks: Iterable[bytes]) -> None:
        part = self._staged / uuid.uuid4().hex
        try:
            with open(part, "wb") as file:
                file.writelines(chunks)
                if self._durable:
                    file.flush()
                    os.fsync(file.fileno())
            filesystem.replace_file(part, path)
        except BaseException:
            part.unlink(missing_ok=True)
            raise


def read_chunks(path: Path) -> Iterator[bytes]:
    with open(path, "rb") as file:
        yield from iter(lambda: file.read(CHUNK), b"")
