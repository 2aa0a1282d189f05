"""The tables of the store, and how a store that an earlier version wrote becomes today's."""

from __future__ import annotations

import json
import sqlite3
from typing import Any

import msgspec

from .records import Environment, Model, now

VERSION = 2

SCHEMA = """
CREATE TABLE artifact (path TEXT PRIMARY KEY, blob TEXT UNIQUE NOT NULL, metadata TEXT NOT NULL);
CREATE TABLE record (
    position INTEGER PRIMARY KEY, kind TEXT NOT NULL, name TEXT NOT NULL, version TEXT NOT NULL,
    document TEXT NOT NULL, UNIQUE (kind, name, version));
CREATE TABLE counter (
    kind TEXT NOT NULL, name TEXT NOT NULL, last INTEGER NOT NULL, PRIMARY KEY (kind, name));
"""
RUN_SCHEMA = """
CREATE TABLE identity (id TEXT NOT NULL);
INSERT INTO identity VALUES (lower(hex(randomblob(4)) || '-' || hex(randomblob(2)) || '-4' ||
    substr(hex(randomblob(2)), 2) || '-8' || substr(hex(randomblob(2)), 2) || '-' ||
    hex(randomblob(6))));
CREATE TABLE experiment (
    position INTEGER PRIMARY KEY, id TEXT UNIQUE NOT NULL, name TEXT NOT NULL,
    document TEXT NOT NULL);
CREATE TABLE run (
    position INTEGER PRIMARY KEY, id TEXT UNIQUE NOT NULL, experiment TEXT NOT NULL,
    parent TEXT NOT NULL, document TEXT NOT NULL);
CREATE INDEX run_of_experiment ON run (experiment);
CREATE INDEX run_of_parent ON run (parent);
CREATE TABLE metric (
    run TEXT NOT NULL, name TEXT NOT NULL, kind TEXT NOT NULL, columns TEXT NOT NULL,
    PRIMARY KEY (run, name));
CREATE TABLE metric_value (
    position INTEGER PRIMARY KEY, run TEXT NOT NULL, name TEXT NOT NULL, document TEXT NOT NULL);
CREATE INDEX value_of_metric ON metric_value (run, name);
"""


def migrate(database: sqlite3.Connection) -> None:
    """Make the tables, or bring older ones up to date; within the caller's transaction.

    Raises
    ------
    ValueError
        If they are of a later version.
    """
    [(version,)] = database.execute("PRAGMA user_version").fetchall()
    if version > VERSION:
        raise ValueError(
            f"it was written by a later version of mnist_deploy (schema {version}; this one reads "
            f"{VERSION}). Install the later version, or set MNIST_DEPLOY_HOME to another folder"
        )
    if version == VERSION:
        return
    if version == 0:
        create_tables_of_version_1(database)
    for statement in filter(str.strip, RUN_SCHEMA.split(";")):
        database.execute(statement)
    database.execute(f"PRAGMA user_version = {VERSION}")


def create_tables_of_version_1(database: sqlite3.Connection) -> None:
    """Create the tables of records and artifacts, from those of 0.1 where there are any."""
    tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master")}
    is_old = "versioned" in tables
    if is_old:
        database.execute("ALTER TABLE artifact RENAME TO old_artifact")
    for statement in filter(str.strip, SCHEMA.split(";")):
        database.execute(statement)
    if is_old:
        take_over_documents(database)


def take_over_documents(database: sqlite3.Connection) -> None:
    """From the store of 0.1, which kept what azureml-core had sent.

    Its models named an asset, which named the artifacts.
    """
    assets = {
        asset_id: json.loads(document)
        for asset_id, document in database.execute("SELECT id, document FROM asset")
    }
    rows = database.execute(
        "SELECT position, kind, name, version, document FROM versioned ORDER BY position"
    )
    for position, kind, name, version, text in rows.fetchall():
        document = json.loads(text)
        record = (
            old_model(name, version, document, assets)
            if kind == "model"
            else old_environment(name, str(version), document)
        )
        database.execute(
            "INSERT INTO record VALUES (?, ?, ?, ?, ?)",
            (position, kind, name, str(version), msgspec.json.encode(record).decode()),
        )
    database.execute("INSERT INTO counter SELECT kind, name, version FROM last_version")
    database.execute("INSERT INTO artifact SELECT id, blob, '{}' FROM old_artifact")
    for table in ("old_artifact", "asset", "versioned", "last_version"):
        database.execute(f"DROP TABLE {table}")


def old_model(
    name: str, version: int, document: dict[str, Any], assets: dict[str, dict[str, Any]]
) -> Model:
    asset = assets.get(str(document.pop("url")).removeprefix("aml://asset/"), {})
    for field in ("name", "createdBy"):
        document.pop(field, None)
    datasets = document.pop("datasets", None)
    if isinstance(datasets, list):
        document["datasets"] = [each for each in datasets if isinstance(each, dict)]
    return Model(
        name,
        version,
        tuple(part.get("prefix") or part["id"] for part in asset.get("artifacts") or []),
        document.pop("createdTime"),
        str(document.pop("description", None) or ""),
        texts(document.pop("kvTags")),
        texts(document.pop("properties")),
        other={"v1": document},
    )


def old_environment(name: str, version: str, definition: dict[str, Any]) -> Environment:
    python, docker = (section(definition.get(part)) for part in ("python", "docker"))
    return Environment(
        name,
        version,
        now(),
        conda=section(python.get("condaDependencies")) or None,
        image=docker.get("baseImage") and str(docker["baseImage"]),
        variables=texts(definition.get("environmentVariables")),
        other={"v1": definition},
    )


def section(found: Any) -> dict[str, Any]:
    """A part of a document, of which nobody had checked what it is."""
    return found if isinstance(found, dict) else {}


def texts(found: Any) -> dict[str, str]:
    return {str(name): str(value) for name, value in section(found).items()}
