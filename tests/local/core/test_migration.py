"""A store of an earlier schema is brought up to date, and keeps what it holds."""

from __future__ import annotations

import sqlite3

from mnist_deploy.local.core import migration
from mnist_deploy.local.core.records import Model
from mnist_deploy.local.core.runs import Runs
from mnist_deploy.local.core.store import Store


def create_store_of_version_1(folder) -> None:
    """A store as version 1 of the schema wrote it, without tables for runs."""
    folder.mkdir()
    (folder / "blobs").mkdir()
    blob = "a" * 32
    (folder / "blobs" / blob).write_bytes(b"weights")
    with sqlite3.connect(folder / "workspace.sqlite") as database:
        for statement in filter(str.strip, migration.SCHEMA.split(";")):
            database.execute(statement)
        document = '{"name":"m","version":1,"artifacts":["LocalUpload/c1"],"created":"2026-01-01"}'
        database.execute("INSERT INTO record VALUES (1, 'model', 'm', '1', ?)", (document,))
        database.execute("INSERT INTO counter VALUES ('model', 'm', 1)")
        database.execute("INSERT INTO artifact VALUES ('LocalUpload/c1/w', ?, '{}')", (blob,))
        database.execute("PRAGMA user_version = 1")
    database.close()


def test_store_of_version_1_gets_tables_for_runs_and_keeps_its_models(tmp_path):
    create_store_of_version_1(tmp_path / "store")
    store = Store(tmp_path / "store")
    assert store.get(Model, "m").artifacts == ("LocalUpload/c1",)
    assert store.artifact("LocalUpload/c1/w").file.read_bytes() == b"weights"
    runs = Runs(store)
    runs.create(runs.create_experiment("digits"), "r1")
    identity = store.id
    store.close()
    again = Store(tmp_path / "store")
    assert again.id == identity
    assert Runs(again).get("r1").number == 1
    again.close()
