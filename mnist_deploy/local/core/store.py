"""The store of the local workspace: records (models, environments, …) and their artifacts."""

from __future__ import annotations

import dataclasses
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from .artifacts import DATASTORE, ArtifactStore
from .blobs import Blobs
from .database import Database
from .faults import Conflict, Full, NotFound
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
CHUNK = 500  # rows that a scan reads at once
MAX_POSITION = 2**63 - 1
MAX_DIGITS = 18  # a version with more digits does not change the counter of its name
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


class Store(ArtifactStore):
    """Records and artifacts under one folder.

    A GC root is called with the lock of the database held, and must not take another lock.

    Parameters
    ----------
    folder : Path
        The folder, which is created if it is missing. Only one process may open it. Incomplete
        files of an earlier process are removed.
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
        database = Database(None if in_memory else folder / "workspace.sqlite")
        super().__init__(database, Blobs(folder, durable=not in_memory))
        try:
            database.configure()
            self._reject_lost_database()
            with self.transaction() as connection:
                migrate(connection)
            self.sweep()
            self._blobs.keep_only({blob for (blob,) in database.rows("SELECT blob FROM artifact")})
        except (OSError, sqlite3.OperationalError, Full):  # caused by the disk, not by the content
            self.close()
            raise
        except UnreadableStore:
            self.close()
            raise
        except Exception as error:
            self.close()
            raise UnreadableStore(
                f"The store in {folder} cannot be read: {error}. To start with an empty store: "
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
        if count and not self.database.rows("SELECT name FROM sqlite_master"):
            raise UnreadableStore(
                f"{self.folder / 'workspace.sqlite'} is missing or empty, but there are {count} "
                "uploaded files beside it. No file was deleted. Restore the database from a "
                "backup, or delete all files: python -m mnist_deploy.local wipe"
            )

    def close(self) -> None:
        self.database.close()

    def transaction(self) -> AbstractContextManager[sqlite3.Connection]:
        """Hold the write lock; a nested transaction is part of the outer one."""
        return self.database.transaction()

    @property
    def id(self) -> str:
        """The random id of this store; the store after a wipe has another id."""
        return self.database.rows("SELECT id FROM identity")[0][0]

    def add(self, record: Record) -> Record:
        """Register `record` as the next version of its name; numbers are never reused.

        Raises
        ------
        Invalid
            If a file of the record was not uploaded.
        """
        kind = kind_of(type(record))
        with self.transaction():
            rows = self.database.rows(
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
            If a file of the record was not uploaded.
        """
        kind, version = kind_of(type(record)), str(record.version)
        with self.transaction() as database:
            if self.find(type(record), record.name, version) is not None:
                raise Conflict(
                    kind,
                    f"Version {version} of {kind} {record.name} exists already: choose another "
                    "version.",
                )
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
        """One version, by default the last registered; None if it does not exist."""
        requested = None if version is None else str(version)
        rows = self.database.rows(
            "SELECT document FROM record WHERE kind = ? AND name = ?"
            " AND version = coalesce(?, version) ORDER BY position DESC LIMIT 1",
            kind_of(kind),
            name,
            requested,
        )
        return decode(kind, rows[0][0]) if rows else None

    def get(self, kind: type[Record], name: str, version: Version | None = None) -> Record:
        """One version, by default the last registered.

        Raises
        ------
        NotFound
            If the version does not exist.
        """
        record = self.find(kind, name, version)
        if record is None:
            raise NotFound(kind_of(kind), name if version is None else f"{name}:{version}")
        return record

    def all(self, kind: type[Record]) -> list[Record]:
        """Every version of every name, the newest first."""
        rows = self.database.rows(
            "SELECT document FROM record WHERE kind = ? ORDER BY position DESC", kind_of(kind)
        )
        return [decode(kind, document) for (document,) in rows]

    def versions(self, kind: type[Record], name: str) -> list[Record]:
        """Every version of a name, the newest first."""
        rows = self.database.rows(
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
        while rows := self.database.rows(query, **values, before=position):
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
        while rows := self.database.rows(query, **values, before=position):
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

    def referenced_paths(self) -> set[str]:
        """Return the paths and prefixes that a record or a GC root refers to."""
        prefixes = [prefix for model in self.all(Model) for prefix in model.artifacts]
        prefixes += [prefix for code in self.all(Code) for prefix in code.artifacts]
        prefixes += [prefix for profile in self.all(Profile) for prefix in profile.artifacts]
        prefixes += [data.path for data in self.all(Data)]
        for (run,) in self.database.rows("SELECT id FROM run"):
            prefixes += [f"ExperimentRun/dcid.{run}", f"azureml/{run}"]
        prefixes += [path for (path,) in self.database.rows(JOB_ARTIFACTS)]
        prefixes += [DATASTORE, *(prefix for root in self.gc_roots for prefix in root())]
        return {prefix.rstrip("/") for prefix in prefixes}


def kind_of(kind: type) -> str:
    """``model`` for Model."""
    return kind.__name__.lower()


def artifacts_of(record: Any) -> tuple[str, ...]:
    return record.artifacts if isinstance(record, Model | Code | Profile) else ()


def encode(record: Any) -> str:
    return msgspec.json.encode(record).decode()


def decode(kind: type[Record], document: str) -> Record:
    return msgspec.json.decode(document, type=kind)
