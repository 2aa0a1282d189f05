"""The artifacts of the store: uploaded bytes by path, and their garbage collection.

A database row contains the path and the metadata of an artifact; a separate file contains its
bytes, see `blobs`.
"""

from __future__ import annotations

import dataclasses
import json
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from .blobs import Blobs
from .database import Database, raising_full
from .faults import Invalid, NotFound

DATASTORE = "datastore"  # the first part of the paths in the data store


@dataclasses.dataclass(frozen=True)
class Artifact:
    """Uploaded bytes.

    Attributes
    ----------
    path : str
        The path that the client chose: ``origin/container/name``.
    file : Path
        The file with the bytes.
    metadata : dict
        The metadata that the client sent.
    """

    path: str
    file: Path
    metadata: dict[str, str]


class ArtifactStore(ABC):
    """Artifacts, and the uploads that write them."""

    def __init__(self, database: Database, blobs: Blobs) -> None:
        self.database, self._blobs = database, blobs
        self._appending = threading.Lock()
        self._touched: dict[str, float] = {}  # monotonic time by upload; the clock stops in standby
        self._staging: set[str] = set()

    @abstractmethod
    def referenced_paths(self) -> set[str]:
        """Return the paths and prefixes of artifacts that must not be deleted."""

    def write(
        self, path: str, chunks: Iterable[bytes], metadata: Mapping[str, str] | None = None
    ) -> Artifact:
        """Write bytes to the artifact `path` atomically, replacing earlier content.

        Raises
        ------
        Invalid
            If `path` is absolute or contains ``..`` (path traversal).
        """
        self.touch(check_path(path))
        with raising_full():
            blob = self._blobs.write(chunks)
        return self._place(path, blob, metadata)

    def append(self, path: str, chunks: Iterable[bytes]) -> int:
        """Append bytes to the artifact `path`, created if it is missing; return its old size.

        Raises
        ------
        Invalid
            As :meth:`write`.
        """
        artifact = self.artifact(path) or self.write(path, [])
        self.touch(path)
        with self._appending, raising_full(), open(artifact.file, "ab") as file:
            size = file.tell()
            file.writelines(chunks)
        return size

    def stage(self, path: str, block: str, chunks: Iterable[bytes]) -> None:
        """Store one block of a large upload to `path` until :meth:`commit` names the block."""
        self.touch(check_path(path))
        self._staging.add(path)
        with raising_full():
            self._blobs.stage(path, block, chunks)

    def commit(
        self, path: str, blocks: Iterable[str], metadata: Mapping[str, str] | None = None
    ) -> Artifact:
        """Join staged blocks, in the order given, under `path`.

        Raises
        ------
        Invalid
            If a block was never staged.
        """
        try:
            with raising_full():
                blob = self._blobs.commit(check_path(path), blocks)
        except FileNotFoundError as error:
            raise Invalid(
                "block list", f"Not all blocks of {path} were uploaded: upload them first."
            ) from error
        self._staging.discard(path)
        return self._place(path, blob, metadata)

    def _place(self, path: str, blob: str, metadata: Mapping[str, str] | None) -> Artifact:
        self.touch(path)
        stored = dict(metadata or {})
        with self.database.transaction() as database:
            before = self.database.rows("SELECT blob FROM artifact WHERE path = ?", path)
            database.execute(
                "REPLACE INTO artifact VALUES (?, ?, ?)", (path, blob, json.dumps(stored))
            )
        for (old,) in before:
            self._blobs.remove(old)
        return Artifact(path, self._blobs.file(blob), stored)

    def touch(self, path: str) -> None:
        """Record the current time as the last activity of the upload that contains `path`."""
        self._touched[upload_of(path)] = time.monotonic()

    def annotate(self, path: str, metadata: Mapping[str, str]) -> Artifact:
        """Replace the metadata of an artifact.

        Raises
        ------
        NotFound
            If the artifact does not exist.
        """
        with self.database.transaction() as database:
            found = self.artifact(path)
            if found is None:
                raise NotFound("artifact", path)
            database.execute(
                "UPDATE artifact SET metadata = ? WHERE path = ?",
                (json.dumps(dict(metadata)), path),
            )
        return dataclasses.replace(found, metadata=dict(metadata))

    def artifact(self, path: str) -> Artifact | None:
        """Return the artifact `path`, or None."""
        rows = self.database.rows("SELECT path, blob, metadata FROM artifact WHERE path = ?", path)
        return self._artifact(*rows[0]) if rows else None

    def artifacts(self, prefix: str) -> list[Artifact]:
        """Return the artifacts at `prefix` and below it."""
        folder = prefix.rstrip("/")
        rows = self.database.rows(
            "SELECT path, blob, metadata FROM artifact"
            " WHERE path = ? OR path > ? AND path < ? ORDER BY path",
            prefix,
            f"{folder}/",
            f"{folder}0",  # '0' follows '/': a range query, which uses the index
        )
        return [self._artifact(*row) for row in rows]

    def _artifact(self, path: str, blob: str, metadata: str) -> Artifact:
        return Artifact(path, self._blobs.file(blob), json.loads(metadata))

    def files(self, prefix: str) -> list[tuple[str, Path]]:
        """Return (path, file) of the artifact `prefix`, and of all artifacts below it."""
        return [(each.path, each.file) for each in self.artifacts(prefix)]

    def check_uploaded(self, prefix: str) -> None:
        """Raise `Invalid` if nothing was uploaded to `prefix` or below it."""
        if not self.artifacts(prefix):
            raise Invalid(
                "artifact", f"{prefix} was not uploaded to this workspace: upload it first."
            )

    def sweep(self, idle: float = 0.0) -> None:
        """Delete unreferenced uploads without activity in the last `idle` seconds."""
        staged = list(self._staging)
        with self.database.transaction():
            since = time.monotonic() - idle
            touched = list(self._touched.items())
            active = {upload for upload, when in touched if when > since}
            paths = [path for (path,) in self.database.rows("SELECT path FROM artifact")]
            self._delete_unreferenced([path for path in paths if upload_of(path) not in active])
            for upload, _ in touched:
                if upload not in active:
                    del self._touched[upload]
        for path in [path for path in staged if upload_of(path) not in active]:
            self._staging.discard(path)
            self._blobs.discard(path)

    def _delete_unreferenced(self, paths: list[str]) -> None:
        """Delete the artifacts at `paths` to which neither a record nor a GC root refers."""
        with self.database.transaction() as database:
            referenced = self.referenced_paths()
            deleted = [
                (path, blob)
                for path in paths
                if not any(folder in referenced for folder in folders_of(path))
                for (blob,) in self.database.rows("SELECT blob FROM artifact WHERE path = ?", path)
            ]
            database.executemany("DELETE FROM artifact WHERE path = ?", [(p,) for p, _ in deleted])
        for _, blob in deleted:
            self._blobs.remove(blob)


def check_path(path: str) -> str:
    """Return `path`; raise `Invalid` for a path traversal."""
    parts = path.split("/")
    if {"", ".", ".."} & set(parts) or "\\" in path or "\0" in path:
        raise Invalid(
            "path",
            f"{path!r} is not the path of an artifact, which must stay in its folder: expected "
            "names separated by '/', without '..' and '\\'.",
        )
    return path


def upload_of(path: str) -> str:
    """Return the upload of an artifact: the first two parts of its path."""
    return "/".join(path.split("/")[:2])


def folders_of(path: str) -> Iterator[str]:
    """Yield `path` and each of its parent folders."""
    while path:
        yield path
        path = path.rpartition("/")[0]
