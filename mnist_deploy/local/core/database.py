"""The SQLite file of the store: queries and transactions."""

from __future__ import annotations

import errno
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .faults import Full


class Database:
    """A connection that threads share; only one process may have the file open.

    Lock: `_lock` is held during each query and transaction, and is the last in any lock order.

    Parameters
    ----------
    file : Path or None
        The database file; None for tables in memory.
    """

    def __init__(self, file: Path | None) -> None:
        self._lock = threading.RLock()
        self._connection = sqlite3.connect(
            file or ":memory:", check_same_thread=False, isolation_level=None
        )

    def configure(self) -> None:
        """Lock the file and set its journal mode; raises an error if the file is not a database."""
        for setting in ("locking_mode=EXCLUSIVE", "journal_mode=WAL", "synchronous=FULL"):
            # EXCLUSIVE avoids the shared-memory file, which network drives do not support.
            self._connection.execute(f"PRAGMA {setting}")

    def close(self) -> None:
        with self._lock:  # closed during a query of another thread, sqlite3 crashes the process
            self._connection.close()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Hold the write lock; a nested transaction is part of the outer one."""
        with self._lock:
            if self._connection.in_transaction:
                yield self._connection
                return
            with raising_full():
                self._connection.execute("BEGIN IMMEDIATE")
                try:
                    yield self._connection
                    self._connection.execute("COMMIT")
                except BaseException:
                    if self._connection.in_transaction:  # a full disk may roll back
                        self._connection.execute("ROLLBACK")
                    raise

    def rows(self, query: str, *values: object, **named: object) -> list[tuple]:
        with self._lock:
            return self._connection.execute(query, named or values).fetchall()


@contextmanager
def raising_full() -> Iterator[None]:
    """Raise `Full` instead of the system's errors for a full disk."""
    try:
        yield
    except (OSError, sqlite3.OperationalError) as error:
        is_full = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        if is_full or "full" in str(error):
            raise Full from error
        raise
