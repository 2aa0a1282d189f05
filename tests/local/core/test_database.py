"""The database of the store, which several threads share."""

from __future__ import annotations

import sqlite3
import threading

import pytest

from mnist_deploy.local.core.database import Database


def test_database_is_closed_after_the_transaction_of_another_thread():
    database = Database(None)
    closing = threading.Thread(target=database.close)
    with database.transaction():
        closing.start()
        closing.join(timeout=0.2)
        assert closing.is_alive()
        assert database.rows("SELECT 1") == [(1,)]
    closing.join()
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        database.rows("SELECT 1")
