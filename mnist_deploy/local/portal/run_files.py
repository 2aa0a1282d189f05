"""The files of a run, and its log as it grows."""

from __future__ import annotations

import codecs
import os
from collections.abc import Iterator
from typing import Any

from ..core.artifacts import Artifact
from ..core.faults import NotFound
from ..core.runs import LOG_FILE, Run, Runs

MAX_LOG_PIECE = 1 << 17  # bytes of a log in one response


def find_executed_run(run: Run, runs: Runs) -> Run:
    """Return the run whose process wrote log and files; for a batch job, its only step."""
    steps = runs.children(run.id) if run.kind == "batch" else []
    return steps[0] if steps else run


def list_run_files(run: Run, runs: Runs) -> Iterator[tuple[str, Artifact]]:
    """Yield (name, artifact) of each file of a run.

    The name is the path below the run's artifacts. For an output stored elsewhere, the name is
    the output's name followed by the path below the output.
    """
    executed = find_executed_run(run, runs)
    folders = {"": executed.artifacts}
    for output, folder in (executed.job.outputs if executed.job else {}).items():
        if not f"{folder}/".startswith(f"{executed.artifacts}/"):
            folders[f"{output}/"] = folder
    for prefix, folder in folders.items():
        for artifact in runs.store.artifacts(folder):
            yield prefix + artifact.path.removeprefix(f"{folder}/"), artifact


def find_run_file(run: Run, runs: Runs, name: str) -> Artifact:
    """Return a file of a run by its name in `list_run_files`.

    Raises
    ------
    NotFound
        If the run has no such file, or its bytes are missing.
    """
    for found, artifact in list_run_files(run, runs):
        if found == name and artifact.file.is_file():
            return artifact
    raise NotFound("file", f"{name} of run {run.id}")


def find_log(run: Run, runs: Runs) -> Artifact | None:
    """Return the log of a run's process; None before the process has started."""
    artifact = runs.store.artifact(f"{run.artifacts}/{LOG_FILE}")
    return artifact if artifact and artifact.file.is_file() else None


def read_log(run: Run, runs: Runs, start: int) -> dict[str, Any]:
    """Return the log of a run from byte `start`, at most its last `MAX_LOG_PIECE` bytes.

    Returns
    -------
    dict
        ``text``, and its byte range ``start`` to ``end``. If ``start`` differs from the requested
        byte, the bytes before ``start`` were omitted.
    """
    executed = find_executed_run(run, runs)
    artifact = find_log(executed, runs)
    if artifact is None:
        return {"text": "", "start": 0, "end": 0}
    with open(artifact.file, "rb") as file:
        size = file.seek(0, os.SEEK_END)
        requested = start if start <= size else 0  # the log was replaced by a shorter one
        start = file.seek(max(requested, size - MAX_LOG_PIECE))
        content = file.read(size - start)
    if start > requested:  # in the middle of a line
        line_end = content.find(b"\n") + 1
        start, content = start + line_end, content[line_end:]
    if not executed.is_terminal:
        content = content[: content.rfind(b"\n") + 1] or content
    text, length = codecs.utf_8_decode(content, "replace", executed.is_terminal)
    return {"text": text, "start": start, "end": start + length}
