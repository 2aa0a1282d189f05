"""The process that measures a container for `Model.profile`: it sends the rows of a data set.

``python -m mnist_deploy.local.programs.profile SETTINGS RESULT``: the settings as JSON, and the
file that the measurements are written to. The process is a client of the workspace as every
other: azureml-core and its data engine read the data set.
"""

from __future__ import annotations

import http.client
import json
import math
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import cycle
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ..process_tree import cpu_seconds, peak_memory

MIN_QUERIES = 100  # rows are sent again until there are so many requests,
MIN_SECONDS = 2.0  # which have taken so long together,
MAX_REPEAT_SECONDS = 10.0  # but not for longer than this, once each row was sent
MAX_SECONDS = 1200.0  # for all rows; the SDK's documentation names 25 minutes
REQUEST_TIMEOUT = 60.0  # seconds
CPU_WINDOW = 1.0  # seconds over which the use of the CPU is averaged
MAX_REASON = 2000  # characters of the answer to a request that failed
PERCENTILES = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99, "p999": 0.999}


class InvalidDataset(Exception):
    """The data set cannot be read, or its rows are no requests."""


@dataclass
class Measurements:
    """What was measured.

    Attributes
    ----------
    rows, unsent : int
        Rows of the data set, and those for which there was no time.
    queries, succeeded : int
        Requests, and those that were answered with 200.
    seconds : float
        The time of all requests together.
    latencies : dict of str to float
        Of the successful requests in milliseconds: ``mean``, and those of `PERCENTILES`.
    cores : float
        The highest use of the CPU, averaged over `CPU_WINDOW`.
    peak_memory : int
        Bytes.
    reason : str
        The answer to the first request that failed.
    """

    rows: int
    unsent: int
    queries: int
    succeeded: int
    seconds: float
    latencies: dict[str, float]
    cores: float
    peak_memory: int
    reason: str = ""


class CpuGauge:
    """The highest use of the CPU by processes, in cores.

    Parameters
    ----------
    read : callable
        The CPU time that the processes have used so far, in seconds.
    """

    def __init__(self, read: Callable[[], float]) -> None:
        self._read = read
        self._start = self._last = (time.monotonic(), read())
        self._highest = 0.0

    def sample(self) -> None:
        """Called between requests: ends a window that has lasted long enough."""
        now = time.monotonic()
        if now - self._last[0] >= CPU_WINDOW:
            used = self._read()
            self._highest = max(self._highest, (used - self._last[1]) / (now - self._last[0]))
            self._last = now, used

    def highest(self) -> float:
        """That of the busiest window; of the whole time, if no window has ended."""
        average = (self._read() - self._start[1]) / max(time.monotonic() - self._start[0], 1e-9)
        return max(self._highest, average)


def read_rows(dataset: str) -> list[str]:
    """The rows of a tabular data set, each a request body.

    Raises
    ------
    InvalidDataset
        If it cannot be read, has no row or more columns than one, or holds anything but text.
    """
    from azureml.core import Dataset, Workspace
    from azureml.core.authentication import MsiAuthentication

    names = {
        argument: os.environ[f"AZUREML_ARM_{variable}"]
        for argument, variable in (
            ("name", "WORKSPACE_NAME"),
            ("subscription_id", "SUBSCRIPTION"),
            ("resource_group", "RESOURCEGROUP"),
        )
    }
    workspace = Workspace.get(**names, auth=MsiAuthentication())
    try:
        frame = Dataset.get_by_id(workspace, dataset).to_pandas_dataframe()
    except Exception as error:  # of the data engine, which has many kinds of them
        raise InvalidDataset(
            f"The data set cannot be read. {type(error).__name__}: {error}"
        ) from error
    if len(frame.columns) != 1:
        raise InvalidDataset(f"The data set has {len(frame.columns)} columns: one is expected.")
    rows = frame.iloc[:, 0].tolist()
    if not rows:
        raise InvalidDataset("The data set has no rows.")
    others = [row for row in rows if not isinstance(row, str)]
    if others:
        raise InvalidDataset(
            f"{len(others)} of {len(rows)} rows are not text but, for instance, {others[0]!r}: "
            "each row is the body of a request."
        )
    return rows


def send_rows(url: str, rows: Sequence[str], processes: Sequence[int]) -> Measurements:
    """Send the rows one after the other, and measure.

    Parameters
    ----------
    url : str
        The scoring URI.
    processes : sequence of int
        The ids of the processes that answer.
    """
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=REQUEST_TIMEOUT)
    gauge = CpuGauge(lambda: sum(map(cpu_seconds, processes)))
    latencies: list[float] = []
    queries, reason = 0, ""
    start = time.monotonic()
    for row in cycle(rows):
        if is_enough(queries, len(rows), time.monotonic() - start):
            break
        began = time.perf_counter()
        problem = send(connection, parts.path, row)
        if problem is None:
            latencies.append(1000 * (time.perf_counter() - began))
        queries, reason = queries + 1, reason or problem or ""
        gauge.sample()
    connection.close()
    return Measurements(
        rows=len(rows),
        unsent=max(0, len(rows) - queries),
        queries=queries,
        succeeded=len(latencies),
        seconds=time.monotonic() - start,
        latencies=summarize(latencies),
        cores=gauge.highest(),
        peak_memory=sum(map(peak_memory, processes)),
        reason=reason,
    )


def is_enough(queries: int, rows: int, seconds: float) -> bool:
    if queries < rows:
        return seconds > MAX_SECONDS
    is_exact = queries >= MIN_QUERIES and seconds >= MIN_SECONDS
    return is_exact or seconds >= MAX_REPEAT_SECONDS


def send(connection: http.client.HTTPConnection, path: str, row: str) -> str | None:
    """Send a row; None if it was answered with 200, else what happened."""
    try:
        connection.request("POST", path, row.encode(), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        content = answer.read()
    except TimeoutError:
        connection.close()
        return f"no answer within {REQUEST_TIMEOUT:g} s"
    except (OSError, http.client.HTTPException) as error:
        connection.close()
        return f"the container did not answer: {type(error).__name__}: {error}"
    if answer.status == http.HTTPStatus.OK:
        return None
    return f"status {answer.status}: {content.decode('utf-8', 'replace')[:MAX_REASON].strip()}"


def summarize(latencies: Sequence[float]) -> dict[str, float]:
    """Mean and percentiles; a percentile is a latency that was measured (nearest rank)."""
    if not latencies:
        return {}
    ordered = sorted(latencies)
    percentiles = {
        name: ordered[math.ceil(share * len(ordered)) - 1] for name, share in PERCENTILES.items()
    }
    return {"mean": sum(ordered) / len(ordered), **percentiles}


def main(settings: dict[str, Any], result: Path) -> int:
    try:
        rows = read_rows(settings["dataset"])
    except InvalidDataset as error:
        result.write_text(json.dumps({"invalid": str(error)}))
        return 1
    measured = send_rows(settings["url"], rows, settings["processes"])
    result.write_text(json.dumps(asdict(measured)))
    return 0


if __name__ == "__main__":
    sys.exit(main(json.loads(sys.argv[1]), Path(sys.argv[2])))
