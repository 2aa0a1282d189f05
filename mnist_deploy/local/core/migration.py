"""The tables of the store, and the migration of a store that an earlier version wrote."""

from __future__ import annotations

import sqlite3

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
    """Create the tables that the store lacks, in the caller's transaction.

    Raises
    ------
    ValueError
        If a later version wrote the store.
    """
    [(version,)] = database.execute("PRAGMA user_version").fetchall()
    if version > VERSION:
        raise ValueError(
            f"it was written by a later version of mnist_deploy (schema {version}; this version "
            f"reads {VERSION}). Install the later version, or set MNIST_DEPLOY_HOME to another "
            "folder"
        )
    if version == VERSION:
        return
    schema = SCHEMA + RUN_SCHEMA if version == 0 else RUN_SCHEMA
    for statement in filter(str.strip, schema.split(";")):
        database.execute(statement)
    database.execute(f"PRAGMA user_version = {VERSION}")
