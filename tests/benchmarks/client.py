"""One benchmark client in a separate process, so that its memory can be measured alone.

`Client` starts this module in the client's own environment. The process scores images for each
line on standard input and prints one line of JSON with the result.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from memory import peak_memory
from ways import WAYS, client_of, stream_client

STREAM = "stream"
PIECE = 1000  # images in each array of a stream


class Client:
    """A client's process.

    Parameters
    ----------
    python : str
        The interpreter of its environment.
    way : str
        The name of a `Way`; or `STREAM`, which sends an iterator of arrays to our service.
    uri, service_name : str
        Of the server; peers have no service name.
    images : Path
        An .npy file.
    """

    def __init__(self, python: str, way: str, uri: str, service_name: str, images: Path) -> None:
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115, closed by close()
        self._process = subprocess.Popen(
            [python, __file__, way, uri, service_name, str(images)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )

    def score(self, count: int) -> dict[str, Any]:
        """Score the first ``count`` images, or a stream of as many.

        Returns
        -------
        dict
            ``labels``; ``seconds`` from arrays to labels; ``peak_mb`` of the process;
            ``added_mb``, the peak minus the peak before the first image.
        """
        return self._request(str(count))

    def write_body(self, count: int, file: Path) -> int:
        """Write a body that holds the first ``count`` images; returns its size in bytes."""
        return self._request(f"{count} {file}")["bytes"]

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()
        self._errors.close()

    def _request(self, line_to_send: str) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            print(line_to_send, file=self._process.stdin, flush=True)
        line = self._process.stdout.readline()
        if not line:
            self._process.wait(timeout=30)
            self._errors.seek(0)
            problem = self._errors.read().decode(errors="replace").strip().splitlines()
            raise RuntimeError(f"the client failed: {problem[-1] if problem else 'no message'}")
        return json.loads(line)


def repeated(images: np.ndarray, count: int) -> Iterator[np.ndarray]:
    """``count`` images in pieces: the same ones again and again."""
    pieces = len(images) // PIECE
    for start in range(0, count, PIECE):
        first = start // PIECE % pieces * PIECE
        yield images[first : first + min(PIECE, count - start)]


def results(way_name: str, uri: str, service_name: str, file: str) -> Iterator[dict[str, Any]]:
    images = np.load(file)
    way = next((way for way in WAYS if way.name == way_name), None)
    score = client_of(way, uri, service_name) if way else stream_client(uri)
    before = peak_memory()
    for line in sys.stdin:
        count, _, body_file = line.strip().partition(" ")
        first = images[: int(count)]
        if way and body_file:
            yield {"bytes": Path(body_file).write_bytes(way.form.body(first))}
            continue
        began = time.perf_counter()
        labels = score(first if way else repeated(images, int(count)))
        seconds = time.perf_counter() - began
        peak = peak_memory()
        added = None if peak is None or before is None else peak - before
        yield {"labels": labels.tolist(), "seconds": seconds, "peak_mb": peak, "added_mb": added}


def main() -> None:
    output, sys.stdout = sys.stdout, sys.stderr  # other prints must not mix with the results
    for result in results(*sys.argv[1:]):
        print(json.dumps(result), file=output, flush=True)


if __name__ == "__main__":
    main()
