"""HTTP load by wrk: one image, posted repeatedly over a number of connections."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections import defaultdict
from pathlib import Path
from statistics import median
from typing import Any

SCRIPT = Path(__file__).with_name("one_image.lua")
MISSING = (
    "wrk is not installed, so that no requests per second are measured. Install it with "
    "'apt-get install wrk' or 'brew install wrk'."
)


def is_installed() -> bool:
    return shutil.which("wrk") is not None


class Load:
    """One request, posted as often as possible.

    Parameters
    ----------
    uri : str
    body : Path
        The file that holds the request body.
    content_type : str
    """

    def __init__(self, uri: str, body: Path, content_type: str) -> None:
        self._uri = uri
        self._arguments = [str(body), content_type]
        self._runs: dict[int, list[dict[str, float]]] = defaultdict(list)

    def run(self, connections: int, seconds: int) -> None:
        """Post over several connections at once, one request at a time on each.

        Raises
        ------
        RuntimeError
            wrk failed; the message has its error output.
        """
        command = ["wrk", "--threads", "1", "--connections", str(connections)]
        command += ["--duration", f"{seconds}s", "--script", str(SCRIPT), self._uri]
        finished = subprocess.run(
            [*command, "--", *self._arguments],
            capture_output=True,
            text=True,
            timeout=seconds + 60,
        )
        last = (finished.stdout.strip().splitlines() or [""])[-1]
        if finished.returncode != 0 or not last.startswith("{"):
            raise RuntimeError(f"wrk failed: {finished.stderr.strip() or last}")
        self._runs[connections].append(json.loads(last))

    def result(self) -> dict[str, Any]:
        """The medians of all runs, by the number of connections.

        ``per_second``, ``p50_ms``, ``p99_ms``, and ``errors``: requests that were not answered
        with 200, or within two seconds.
        """
        return {
            str(connections): {key: median(run[key] for run in runs) for key in runs[0]}
            for connections, runs in self._runs.items()
        }
