"""The metrics of runs: values that clients log under a name, in the store's database."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from .faults import NotFound
from .store import Store, encode

MAX_UNORDERED = 250  # values that arrive before one that was logged earlier


@dataclass(frozen=True)
class Metric:
    """All values that were logged under one name in one run.

    Attributes
    ----------
    columns : dict of str to str
        The type of each column, as the client names it.
    kind : str
        As the client names it, for instance ``azureml.v1.scalar``.
    values : tuple of dict
        In the order of logging: ``metricId``, ``createdUtc``, ``step`` and ``data``.
    """

    name: str
    columns: dict[str, str]
    kind: str
    values: tuple[dict[str, Any], ...]


class Metrics:
    """The metrics of the runs of a store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._select = store.database.rows

    def log(self, run_id: str, metrics: Sequence[Metric]) -> None:
        """Append values; a column keeps the type that it was first logged with."""
        with self._store.transaction() as database:
            if not self._select("SELECT 1 FROM run WHERE id = ?", run_id):
                raise NotFound("run", run_id)
            for metric in metrics:
                known = self._columns(run_id, metric.name)
                columns, kind = known or ({}, metric.kind)
                database.execute(
                    "REPLACE INTO metric VALUES (?, ?, ?, ?)",
                    (run_id, metric.name, kind, encode(metric.columns | columns)),
                )
                database.executemany(
                    "INSERT INTO metric_value (run, name, document) VALUES (?, ?, ?)",
                    [(run_id, metric.name, encode(value)) for value in metric.values],
                )

    def _columns(self, run_id: str, name: str) -> tuple[dict[str, str], str] | None:
        rows = self._select(
            "SELECT columns, kind FROM metric WHERE run = ? AND name = ?", run_id, name
        )
        return (msgspec.json.decode(rows[0][0]), rows[0][1]) if rows else None

    def names(self, run_id: str) -> list[tuple[str, dict[str, str], str]]:
        """(name, columns, kind) of each metric of a run, in alphabetical order."""
        rows = self._select(
            "SELECT name, columns, kind FROM metric WHERE run = ? ORDER BY name", run_id
        )
        return [(name, msgspec.json.decode(columns), kind) for name, columns, kind in rows]

    def get(self, run_id: str, name: str) -> Metric:
        """One metric of a run with all its values.

        Raises
        ------
        NotFound
            If nothing was logged under that name.
        """
        known = self._columns(run_id, name)
        if known is None:
            raise NotFound("metric", f"{name} of run {run_id}")
        rows = self._select(
            "SELECT document FROM metric_value WHERE run = ? AND name = ? ORDER BY position",
            run_id,
            name,
        )
        values = [msgspec.json.decode(text) for (text,) in rows]
        return Metric(name, *known, tuple(sorted(values, key=logging_time)))

    def last_numbers(self, run_id: str) -> dict[str, float]:
        """The last value of each metric that is a number."""
        last = (
            "SELECT document FROM (SELECT document, position FROM metric_value"
            f" WHERE run = metric.run AND name = metric.name ORDER BY position DESC"
            f" LIMIT {MAX_UNORDERED})"
            " ORDER BY rtrim(json_extract(document, '$.createdUtc'), 'Z') DESC, position DESC"
            " LIMIT 1"
        )
        rows = self._select(
            f"SELECT name, columns, ({last}) FROM metric WHERE run = ? ORDER BY name", run_id
        )
        numbers = {}
        for name, columns, document in rows:
            if document and list(msgspec.json.decode(columns)) == [name]:
                value = msgspec.json.decode(document)["data"].get(name)
                if isinstance(value, int | float):
                    numbers[name] = value
        return numbers

    def last_position(self, run_id: str) -> int:
        """A number that grows with each value that the run logs."""
        rows = self._select("SELECT max(position) FROM metric_value WHERE run = ?", run_id)
        return rows[0][0] or 0


def logging_time(value: Mapping[str, Any]) -> str:
    """When the client logged a value, as text that sorts.

    azureml-core sends the batches of a run in parallel, so that values arrive in another order. It
    leaves zeros at the end of a fraction out, and sorts before the longer fraction without the Z.
    """
    return str(value.get("createdUtc") or "").removesuffix("Z")
