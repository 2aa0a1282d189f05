"""The measuring process of `Model.profile`: sends the rows of a data set to a container.

``python -m mnist_deploy.local.programs.profile SETTINGS RESULT``: the settings as JSON, and the
file that the measurements are written to. The process is an ordinary client of the workspace:
azureml-core and its data engine read the data set.
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

MIN_QUERIES = 100  # the rows are repeated until this number of requests
MIN_SECONDS = 2.0  # and this total duration are reached,
MAX_REPEAT_SECONDS = 10.0  # or this limit, once every row was sent
MAX_SECONDS = 1200.0  # for all rows; the SDK's documentation names 25 minutes
REQUEST_TIMEOUT = 60.0  # seconds
CPU_WINDOW = 1.0  # seconds over which the use of the CPU is averaged
MAX_REASON = 2000  # characters of the response to a failed request
PERCENTILES = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99, "p999": 0.999}


class InvalidDataset(Exception):
    """The data set cannot be read, or a row is not a request body."""


@dataclass
class Measurements:
    """The measurements of one container.

    Attributes
    ----------
    rows, unsent : int
        The number of rows of the data set, and of rows not sent before the time limit.
    queries, succeeded : int
        The number of requests, and of responses with status 200.
    seconds : float
        The total duration of all requests.
    latencies : dict of str to float
        Latencies of the successful requests in milliseconds: ``mean`` and the `PERCENTILES`.
    cores : float
        The highest CPU usage, averaged over `CPU_WINDOW`.
    peak_memory : int
        The peak resident memory in bytes.
    reason : str
        The error or response of the first failed request.
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
    """Measures the highest CPU usage of processes, in cores.

    Parameters
    ----------
    read : callable
        Returns the CPU time of the processes so far, in seconds.
    """

    def __init__(self, read: Callable[[], float]) -> None:
        self._read = read
        self._start = self._last = (time.monotonic(), read())
        self._highest = 0.0

    def sample(self) -> None:
        """Close the current window if `CPU_WINDOW` has passed; called between requests."""
        now = time.monotonic()
        if now - self._last[0] >= CPU_WINDOW:
            used = self._read()
            self._highest = max(self._highest, (used - self._last[1]) / (now - self._last[0]))
            self._last = now, used

    def highest(self) -> float:
        """Return the usage of the busiest window, or of the whole time if no window is closed."""
        average = (self._read() - self._start[1]) / max(time.monotonic() - self._start[0], 1e-9)
        return max(self._highest, average)


def read_rows(dataset: str) -> list[str]:
    """Return the rows of a tabular data set; each row is a request body.

    Raises
    ------
    InvalidDataset
        If the data set cannot be read, has no row, has more than one column, or has a value
        that is not text.
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
    except Exception as error:  # the data engine raises exceptions of many classes
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
            "expected the body of a request in each row."
        )
    return rows


def send_rows(url: str, rows: Sequence[str], processes: Sequence[int]) -> Measurements:
    """Send the rows one after the other, and return the measurements.

    Parameters
    ----------
    url : str
        The scoring URI.
    processes : sequence of int
        The ids of the scoring processes.
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
    """Send a row; return None for a response with status 200, otherwise the reason."""
    try:
        connection.request("POST", path, row.encode(), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        content = answer.read()
    except TimeoutError:
        connection.close()
        return f"no response within {REQUEST_TIMEOUT:g} s"
    except (OSError, http.client.HTTPException) as error:
        connection.close()
        return f"the container did not answer: {type(error).__name__}: {error}"
    if answer.status == http.HTTPStatus.OK:
        return None
    return f"status {answer.status}: {content.decode('utf-8', 'replace')[:MAX_REASON].strip()}"


def summarize(latencies: Sequence[float]) -> dict[str, float]:
    """Return mean and percentiles; percentiles are measured latencies (nearest rank)."""
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
