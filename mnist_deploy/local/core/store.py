"""The store of the local workspace on disk: records and artifacts.

Records (models, environments, code, …) are rows of one SQLite file; the bytes of artifacts are
files beside it, see `blobs`.
"""

from __future__ import annotations

import dataclasses
import errno
import json
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from .blobs import Blobs
from .faults import Conflict, Full, Invalid, NotFound
from .migration import migrate
from .records import (
    BatchDeployment,
    BatchEndpoint,
    Code,
    Compute,
    Data,
    Dataset,
    Environment,
    Model,
    Profile,
    RegisteredModel,
    SavedDataset,
)

Record = TypeVar(
    "Record",
    Model,
    Environment,
    Code,
    Compute,
    Data,
    Dataset,
    SavedDataset,
    BatchEndpoint,
    BatchDeployment,
    Profile,
    RegisteredModel,
)
Version = int | str
DATASTORE = "datastore"  # the first part of the paths in the data store
CHUNK = 500  # rows that a scan reads at once
MAX_POSITION = 2**63 - 1
MAX_DIGITS = 18  # of a version that the counter of its name takes into account
# The outputs of all jobs, and the inputs of the jobs that have not ended.
JOB_ARTIFACTS = """
SELECT output.value FROM run, json_each(run.document, '$.job.outputs') AS output
UNION
SELECT artifact.value FROM run, json_each(run.document, '$.job.inputs') AS input,
    json_each(input.value, '$.artifacts') AS artifact
WHERE json_extract(run.document, '$.status') NOT IN ('Completed', 'Failed', 'Canceled')
"""


class UnreadableStore(Exception):
    """The files of the workspace are damaged, or were written by a later version."""


@dataclasses.dataclass(frozen=True)
class Artifact:
    """Bytes that were uploaded.

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


class Store:
    """Records and artifacts under one folder.

    Lock: `_lock` is held during each query and transaction. It may be taken with any other lock
    held; a GC root is called with `_lock` held and therefore takes no other lock.

    Parameters
    ----------
    folder : Path
        Created if it is missing. Only one process may have it open. Incomplete files of an
        earlier process are removed.
    in_memory : bool
        Keep the records in memory, and write artifacts to `folder` without waiting for the disk:
        for a store that ends with its process.

    Attributes
    ----------
    gc_roots : list of callables
        Each returns paths or prefixes of artifacts that `sweep` keeps although no record refers
        to them.

    Raises
    ------
    UnreadableStore
        If the content of `folder` cannot be read.
    """

    def __init__(self, folder: Path, *, in_memory: bool = False) -> None:
        self.folder = folder
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.gc_roots: list[Callable[[], Iterable[str]]] = []
        self._blobs = Blobs(folder, durable=not in_memory)
        self._lock = threading.RLock()
        self._touched: dict[str, float] = {}  # by upload, monotonic: the clock stops in standby
        self._staging: set[str] = set()
        self._database = sqlite3.connect(
            ":memory:" if in_memory else folder / "workspace.sqlite",
            check_same_thread=False,
            isolation_level=None,
        )
        try:
            for setting in ("locking_mode=EXCLUSIVE", "journal_mode=WAL", "synchronous=FULL"):
                # EXCLUSIVE avoids the shared-memory file, which network drives do not support.
                self._database.execute(f"PRAGMA {setting}")
            self._reject_lost_database()
            with self.transaction() as database:
                migrate(database)
            self.sweep()
            self._blobs.keep_only({blob for (blob,) in self._rows("SELECT blob FROM artifact")})
        except (OSError, sqlite3.OperationalError, Full):  # of the disk, not of the content
            self.close()
            raise
        except UnreadableStore:
            self.close()
            raise
        except Exception as error:
            self.close()
            raise UnreadableStore(
                f"The store in {folder} cannot be read: {error}. To start with an empty one: "
                "python -m mnist_deploy.local wipe"
            ) from error

    def _reject_lost_database(self) -> None:
        """Reject a folder with blobs and an empty database: a sweep would delete all blobs.

        Raises
        ------
        UnreadableStore
            If the database has no table, but there are blobs.
        """
        count = self._blobs.count()
        if count and not self._rows("SELECT name FROM sqlite_master"):
            raise UnreadableStore(
                f"{self.folder / 'workspace.sqlite'} is missing or empty, but there are {count} "
                "uploaded files beside it. No file was deleted. Restore the database from a "
                "backup; or delete them all: python -m mnist_deploy.local wipe"
            )

    def close(self) -> None:
        self._database.close()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Hold the write lock; a nested transaction is part of the outer one."""
        with self._lock:
            if self._database.in_transaction:
                yield self._database
                return
            with raising_full():
                self._database.execute("BEGIN IMMEDIATE")
                try:
                    yield self._database
                    self._database.execute("COMMIT")
                except BaseException:
                    if self._database.in_transaction:  # a full disk may have ended it already
                        self._database.execute("ROLLBACK")
                    raise

    def _rows(self, query: str, *values: object) -> list[tuple]:
        with self._lock:
            return self._database.execute(query, values).fetchall()

    def _named_rows(self, query: str, values: Mapping[str, object]) -> list[tuple]:
        with self._lock:
            return self._database.execute(query, values).fetchall()

    # Records.

    def add(self, record: Record) -> Record:
        """Register `record` as the next version of its name; numbers are never reused.

        Raises
        ------
        Invalid
            If a file of it was not uploaded.
        """
        kind = kind_of(type(record))
        with self.transaction():
            rows = self._rows(
                "SELECT last FROM counter WHERE kind = ? AND name = ?", kind, record.name
            )
            number = rows[0][0] + 1 if rows else 1
            return self.put(dataclasses.replace(record, version=type(record.version)(number)))

    def put(self, record: Record) -> Record:
        """Write a new version under the version that `record` has.

        Raises
        ------
        Conflict
            If that version exists already.
        Invalid
            If a file of it was not uploaded.
        """
        kind, version = kind_of(type(record)), str(record.version)
        with self.transaction() as database:
            if self.find(type(record), record.name, version) is not None:
                raise Conflict(kind, f"There is version {version} of {kind} {record.name} already.")
            for prefix in artifacts_of(record):
                self.check_uploaded(prefix)
            database.execute(
                "INSERT INTO record (kind, name, version, document) VALUES (?, ?, ?, ?)",
                (kind, record.name, version, encode(record)),
            )
            if version.isascii() and version.isdigit() and len(version) <= MAX_DIGITS:
                database.execute(
                    "INSERT INTO counter VALUES (?, ?, ?) ON CONFLICT (kind, name)"
                    " DO UPDATE SET last = max(last, excluded.last)",
                    (kind, record.name, int(version)),
                )
        return record

    def find(self, kind: type[Record], name: str, version: Version | None = None) -> Record | None:
        """One version, by default the one that was registered last; None if it does not exist."""
        requested = None if version is None else str(version)
        rows = self._rows(
            "SELECT document FROM record WHERE kind = ? AND name = ?"
            " AND version = coalesce(?, version) ORDER BY position DESC LIMIT 1",
            kind_of(kind),
            name,
            requested,
        )
        return decode(kind, rows[0][0]) if rows else None

    def get(self, kind: type[Record], name: str, version: Version | None = None) -> Record:
        """One version, by default the one that was registered last.

        Raises
        ------
        NotFound
            If it does not exist.
        """
        record = self.find(kind, name, version)
        if record is None:
            raise NotFound(kind_of(kind), name if version is None else f"{name}:{version}")
        return record

    def all(self, kind: type[Record]) -> list[Record]:
        """Every version of every name, the newest first."""
        rows = self._rows(
            "SELECT document FROM record WHERE kind = ? ORDER BY position DESC", kind_of(kind)
        )
        return [decode(kind, document) for (document,) in rows]

    def versions(self, kind: type[Record], name: str) -> list[Record]:
        """Every version of a name, the newest first."""
        rows = self._rows(
            "SELECT document FROM record WHERE kind = ? AND name = ? ORDER BY position DESC",
            kind_of(kind),
            name,
        )
        return [decode(kind, document) for (document,) in rows]

    def scan(
        self,
        kind: type[Record],
        *,
        name: str | None = None,
        before: int | None = None,
        latest: bool = False,
    ) -> Iterator[tuple[int, Record]]:
        """Yield (position, record) of every version, the newest first.

        Parameters
        ----------
        name : str, optional
            Only versions of this name.
        before : int, optional
            Only records with a lower position, to continue an earlier scan.
        latest : bool
            Only the version of each name that was registered last.
        """
        conditions = (
            "kind = :kind AND name = coalesce(:name, name) AND position < :before"
            " AND (NOT :latest OR position = (SELECT max(position) FROM record AS other"
            " WHERE other.kind = record.kind AND other.name = record.name))"
        )
        query = (
            f"SELECT position, document FROM record WHERE {conditions}"
            " ORDER BY position DESC LIMIT :chunk"
        )
        values = {"kind": kind_of(kind), "name": name, "latest": latest, "chunk": CHUNK}
        position = MAX_POSITION if before is None else before
        while rows := self._named_rows(query, values | {"before": position}):
            for position, document in rows:
                yield position, decode(kind, document)

    def names(self, kind: type[Record], before: int | None = None) -> Iterator[tuple[int, str]]:
        """Yield (position of the newest version, name), the newest first, as :meth:`scan` does."""
        query = (
            "SELECT max(position) AS newest, name FROM record WHERE kind = :kind GROUP BY name"
            " HAVING newest < :before ORDER BY newest DESC LIMIT :chunk"
        )
        values = {"kind": kind_of(kind), "chunk": CHUNK}
        position = MAX_POSITION if before is None else before
        while rows := self._named_rows(query, values | {"before": position}):
            for position, name in rows:
                yield position, name

    def change(
        self,
        kind: type[Record],
        name: str,
        version: Version,
        function: Callable[[Record], Record],
    ) -> Record:
        """Replace one version by ``function(version)``, in one transaction.

        Raises
        ------
        NotFound
            If the version does not exist.
        """
        with self.transaction() as database:
            changed = function(self.get(kind, name, version))
            database.execute(
                "UPDATE record SET document = ? WHERE kind = ? AND name = ? AND version = ?",
                (encode(changed), kind_of(kind), name, str(version)),
            )
        return changed

    def delete(self, kind: type[Record], name: str, version: Version) -> None:
        """Delete one version, and its files unless another record refers to them.

        Raises
        ------
        NotFound
            If the version does not exist.
        """
        with self.transaction() as database:
            record = self.get(kind, name, version)
            database.execute(
                "DELETE FROM record WHERE kind = ? AND name = ? AND version = ?",
                (kind_of(kind), name, str(version)),
            )
        paths = [each.path for prefix in artifacts_of(record) for each in self.artifacts(prefix)]
        self._delete_unreferenced(paths)

    # Artifacts.

    def write(
        self, path: str, chunks: Iterable[bytes], metadata: Mapping[str, str] | None = None
    ) -> Artifact:
        """Write bytes to the artifact `path` atomically, replacing earlier content.

        Raises
        ------
        Invalid
            If `path` is absolute or contains ``..``: a download would leave its folder.
        """
        self.touch(check_path(path))
        with raising_full():
            blob = self._blobs.write(chunks)
        return self._place(path, blob, metadata)

    @property
    def id(self) -> str:
        """The random id of this store; the store after a wipe has another id."""
        return self._rows("SELECT id FROM identity")[0][0]

    def append(self, path: str, chunks: Iterable[bytes]) -> int:
        """Append bytes to the artifact `path`, created if it is missing; return its old size.

        Raises
        ------
        Invalid
            As :meth:`write`.
        """
        artifact = self.artifact(path) or self.write(path, [])
        self.touch(path)
        with self._lock, raising_full(), open(artifact.file, "ab") as file:
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
            raise Invalid("block list", f"Not all blocks of {path} were uploaded.") from error
        self._staging.discard(path)
        return self._place(path, blob, metadata)

    def _place(self, path: str, blob: str, metadata: Mapping[str, str] | None) -> Artifact:
        self.touch(path)
        stored = dict(metadata or {})
        with self.transaction() as database:
            before = self._rows("SELECT blob FROM artifact WHERE path = ?", path)
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
            If nothing was uploaded there.
        """
        with self.transaction() as database:
            found = self.artifact(path)
            if found is None:
                raise NotFound("artifact", path)
            database.execute(
                "UPDATE artifact SET metadata = ? WHERE path = ?",
                (json.dumps(dict(metadata)), path),
            )
        return dataclasses.replace(found, metadata=dict(metadata))

    def artifact(self, path: str) -> Artifact | None:
        """The artifact `path`, or None."""
        rows = self._rows("SELECT path, blob, metadata FROM artifact WHERE path = ?", path)
        return self._artifact(*rows[0]) if rows else None

    def artifacts(self, prefix: str) -> list[Artifact]:
        """The artifacts at `prefix` and below it."""
        folder = prefix.rstrip("/")
        rows = self._rows(
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
        """(path, file) of the artifact `prefix`, and of all artifacts below it."""
        return [(each.path, each.file) for each in self.artifacts(prefix)]

    def check_uploaded(self, prefix: str) -> None:
        """Raise `Invalid` if nothing was uploaded to `prefix` or below it."""
        if not self.artifacts(prefix):
            raise Invalid("artifact", f"{prefix} was not uploaded to this workspace.")

    def sweep(self, idle: float = 0.0) -> None:
        """Delete unreferenced uploads without activity in the last `idle` seconds."""
        staged = list(self._staging)
        with self.transaction():
            since = time.monotonic() - idle
            touched = list(self._touched.items())
            active = {upload for upload, when in touched if when > since}
            paths = [path for (path,) in self._rows("SELECT path FROM artifact")]
            self._delete_unreferenced([path for path in paths if upload_of(path) not in active])
            for upload, _ in touched:
                if upload not in active:
                    del self._touched[upload]
        for path in [path for path in staged if upload_of(path) not in active]:
            self._staging.discard(path)
            self._blobs.discard(path)

    def _delete_unreferenced(self, paths: list[str]) -> None:
        """Delete the artifacts at `paths` that neither a record nor a GC root refers to."""
        with self.transaction() as database:
            referenced = self._referenced_paths()
            deleted = [
                (path, blob)
                for path in paths
                if not any(folder in referenced for folder in folders_of(path))
                for (blob,) in self._rows("SELECT blob FROM artifact WHERE path = ?", path)
            ]
            database.executemany("DELETE FROM artifact WHERE path = ?", [(p,) for p, _ in deleted])
        for _, blob in deleted:
            self._blobs.remove(blob)

    def _referenced_paths(self) -> set[str]:
        """Return the paths and prefixes that a record or a GC root refers to."""
        prefixes = [prefix for model in self.all(Model) for prefix in model.artifacts]
        prefixes += [prefix for code in self.all(Code) for prefix in code.artifacts]
        prefixes += [prefix for profile in self.all(Profile) for prefix in profile.artifacts]
        prefixes += [data.path for data in self.all(Data)]
        for (run,) in self._rows("SELECT id FROM run"):
            prefixes += [f"ExperimentRun/dcid.{run}", f"azureml/{run}"]
        prefixes += [path for (path,) in self._rows(JOB_ARTIFACTS)]
        prefixes += [DATASTORE, *(prefix for root in self.gc_roots for prefix in root())]
        return {prefix.rstrip("/") for prefix in prefixes}


@contextmanager
def raising_full() -> Iterator[None]:
    """Raise `Full` instead of the errors by which the system reports a full disk."""
    try:
        yield
    except (OSError, sqlite3.OperationalError) as error:
        is_full = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        if is_full or "full" in str(error):
            raise Full from error
        raise


def kind_of(kind: type) -> str:
    """``model`` for Model."""
    return kind.__name__.lower()


def artifacts_of(record: Any) -> tuple[str, ...]:
    return record.artifacts if isinstance(record, Model | Code | Profile) else ()


def encode(record: Any) -> str:
    return msgspec.json.encode(record).decode()


def decode(kind: type[Record], document: str) -> Record:
    return msgspec.json.decode(document, type=kind)


def check_path(path: str) -> str:
    """Return `path`; raise `Invalid` if a download of it would leave its folder."""
    parts = path.split("/")
    if {"", ".", ".."} & set(parts) or "\\" in path or "\0" in path:
        raise Invalid(
            "path",
            f"{path!r} is not the path of an artifact, which must stay in its folder: expected "
            "names separated by '/', without '..' and '\\'.",
        )
    return path


def upload_of(path: str) -> str:
    """The upload of an artifact: the first two parts of its path."""
    return "/".join(path.split("/")[:2])


def folders_of(path: str) -> Iterator[str]:
    """Yield `path` and each of its parent folders."""
    while path:
        yield path
        path = path.rpartition("/")[0]
