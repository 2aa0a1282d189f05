"""Load by wrk: the same one image, again and again, over some connections."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from ways import Form

SCRIPT = Path(__file__).with_name("one_image.lua")
MISSING = (
    "wrk is not installed, so that no requests per second are measured. Install it with "
    "'apt-get install wrk' or 'brew install wrk'."
)


def is_installed() -> bool:
    return shutil.which("wrk") is not None


def measure(uri: str, form: Form, body: bytes, connections: int, seconds: int) -> dict[str, Any]:
    """Post a body again and again.

    Returns
    -------
    dict
        ``per_second``, ``p50_ms``, ``p99_ms``, and ``errors``: requests that were not answered
        with 200, or within two seconds.

    Raises
    ------
    RuntimeError
        wrk failed; with what it said.
    """
    with tempfile.NamedTemporaryFile() as file:
        file.write(body)
        file.flush()
        command = ["wrk", "--threads", "1", "--connections", str(connections)]
        command += ["--duration", f"{seconds}s", "--script", str(SCRIPT), uri]
        command += ["--", file.name, form.content_type]
        finished = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 60)
    last = (finished.stdout.strip().splitlines() or [""])[-1]
    if finished.returncode != 0 or not last.startswith("{"):
        raise RuntimeError(f"wrk failed: {finished.stderr.strip() or last}")
    return json.loads(last)
