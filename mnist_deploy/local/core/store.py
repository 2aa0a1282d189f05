"""What is registered in the local workspace, on disk.

Documents (models, environments, assets) are rows of one SQLite file, the bytes of
artifacts are files beside it.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .blobs import Blobs

Document = dict[str, Any]
Version = int | str

SCHEMA = """
CREATE TABLE IF NOT EXISTS artifact (id TEXT PRIMARY KEY, blob TEXT UNIQUE NOT NULL);
CREATE TABLE IF NOT EXISTS asset (id TEXT PRIMARY KEY, document TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS versioned (
    position INTEGER PRIMARY KEY, kind TEXT, name TEXT, version, document TEXT NOT NULL,
    UNIQUE (kind, name, version));
CREATE TABLE IF NOT EXISTS last_version (
    kind TEXT, name TEXT, version INTEGER NOT NULL, PRIMARY KEY (kind, name));
"""


class Store:
    """Models, environments, assets and artifacts under one folder.

    Parameters
    ----------
    folder : Path
        Made if missing. Only one process may have it open; what an earlier one left
        half-written is swept away.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.blobs = Blobs(folder)
        self._lock = threading.RLock()
        self._database = sqlite3.connect(
            folder / "workspace.sqlite", check_same_thread=False, isolation_level=None
        )
        for setting in ("locking_mode=EXCLUSIVE", "journal_mode=WAL", "synchronous=FULL"):
            # Exclusive: without a file in shared memory, which network drives do not have.
            self._database.execute(f"PRAGMA {setting}")
        self._database.executescript(SCHEMA)
        self._sweep()

    def close(self) -> None:
        self._database.close()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
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

    # Artifacts: a path that the SDK chose, and the blob that holds its bytes.

    def add_artifact(self, artifact_id: str) -> str:
        """Give `artifact_id` (origin/container/path) a blob yet to be written; its name."""
        blob = self.blobs.new_name()
        with self._transaction() as database:
            database.execute("REPLACE INTO artifact VALUES (?, ?)", (artifact_id, blob))
        return blob

    def artifacts(self, prefix: str) -> list[tuple[str, Path]]:
        """(id, file) of the artifact `prefix` itself and of all below it.

        A file is missing as long as its bytes have not all arrived.
        """
        return [(artifact, self.blobs.file(blob)) for artifact, blob in self._artifacts(prefix)]

    def _artifacts(self, prefix: str) -> list[tuple[str, str]]:
        folder = prefix.rstrip("/") + "/"
        return self._rows(
            "SELECT id, blob FROM artifact WHERE id = ? OR substr(id, 1, ?) = ? ORDER BY id",
            prefix,
            len(folder),
            folder,
        )

    # Documents.

    def add_asset(self, document: Document) -> None:
        with self._transaction() as database:
            row = (document["id"], json.dumps(document))
            database.execute("INSERT INTO asset VALUES (?, ?)", row)

    def asset(self, asset_id: str) -> Document | None:
        rows = self._rows("SELECT document FROM asset WHERE id = ?", asset_id)
        return json.loads(rows[0][0]) if rows else None

    def add(self, kind: str, name: str, document: Document) -> int:
        """Register `document` as the next version of `name`; no number is ever used again."""
        with self._transaction():
            rows = self._rows(
                "SELECT version FROM last_version WHERE kind = ? AND name = ?", kind, name
            )
            version = rows[0][0] + 1 if rows else 1
            self._put(kind, name, version, document)
        return version

    def put(self, kind: str, name: str, version: Version, document: Document) -> None:
        """Write one version, new or not, under the version that is given."""
        with self._transaction():
            self._put(kind, name, version, document)

    def _put(self, kind: str, name: str, version: Version, document: Document) -> None:
        self._database.execute(
            "INSERT INTO versioned (kind, name, version, document) VALUES (?, ?, ?, ?)"
            " ON CONFLICT (kind, name, version) DO UPDATE SET document = excluded.document",
            (kind, name, version, json.dumps(document)),
        )
        if isinstance(version, int):
            self._database.execute(
                "INSERT INTO last_version VALUES (?, ?, ?) ON CONFLICT (kind, name)"
                " DO UPDATE SET version = max(version, excluded.version)",
                (kind, name, version),
            )

    def get(
        self, kind: str, name: str, version: Version | None = None
    ) -> tuple[Version, Document] | None:
        """(version, document) of one version, by default the newest, or None."""
        rows = self._rows(
            "SELECT version, document FROM versioned WHERE kind = ? AND name = ?"
            " AND (?3 IS NULL OR version = ?3) ORDER BY position DESC LIMIT 1",
            kind,
            name,
            version,
        )
        return (rows[0][0], json.loads(rows[0][1])) if rows else None

    def all(self, kind: str) -> list[tuple[str, Version, Document]]:
        """(name, version, document) of every version of every name, the newest first."""
        rows = self._rows(
            "SELECT name, version, document FROM versioned WHERE kind = ? ORDER BY position DESC",
            kind,
        )
        return [(name, version, json.loads(document)) for name, version, document in rows]

    def delete(self, kind: str, name: str, version: Version) -> None:
        with self._transaction() as database:
            database.execute(
                "DELETE FROM versioned WHERE kind = ? AND name = ? AND version = ?",
                (kind, name, version),
            )

    def remove_asset(self, asset_id: str) -> None:
        """Forget an asset, its artifacts and their bytes, unless a model still refers to it."""
        asset = self.asset(asset_id)
        if asset is None or asset_id in self._assets_in_use():
            return
        gone = [pair for prefix in asset_prefixes(asset) for pair in self._artifacts(prefix)]
        with self._transaction() as database:
            database.execute("DELETE FROM asset WHERE id = ?", (asset_id,))
            database.executemany("DELETE FROM artifact WHERE id = ?", [(pair[0],) for pair in gone])
        for _, blob in gone:
            self.blobs.remove(blob)

    def _assets_in_use(self) -> set[str]:
        return {asset_of(document) for _, _, document in self.all("model")}

    def _sweep(self) -> None:
        """Forget what no model refers to: uploads that were cut off, code of old services."""
        wanted = self._assets_in_use()
        for (asset_id,) in self._rows("SELECT id FROM asset"):
            if asset_id not in wanted:
                self.remove_asset(asset_id)
        prefixes = [p for asset in wanted for p in asset_prefixes(self.asset(asset) or {})]
        kept = {blob for prefix in prefixes for _, blob in self._artifacts(prefix)}
        with self._transaction() as database:
            for (blob,) in self._rows("SELECT blob FROM artifact"):
                if blob not in kept:
                    database.execute("DELETE FROM artifact WHERE blob = ?", (blob,))
        self.blobs.keep_only(kept)


def asset_of(model: Document) -> str:
    """The id of the asset that a registered model's url (aml://asset/ID) names."""
    return model["url"].removeprefix("aml://asset/")


def asset_prefixes(asset: Document) -> list[str]:
    """The artifact ids, or prefixes of them, that make up an asset."""
    return [part.get("prefix") or part["id"] for part in asset.get("artifacts") or []]
