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
    """The run whose process wrote log and files: of a batch job, its one step."""
    steps = runs.children(run.id) if run.kind == "batch" else []
    return steps[0] if steps else run


def list_run_files(run: Run, runs: Runs) -> Iterator[tuple[str, Artifact]]:
    """(name, artifact) of each file of a run.

    A name is the path below the artifacts of the run; for an output that is elsewhere in the
    store, the path below the output, after the output's name.
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
    """A file of a run, by the name that `list_run_files` gives it.

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
    """What the process of a run prints, if it has started."""
    artifact = runs.store.artifact(f"{run.artifacts}/{LOG_FILE}")
    return artifact if artifact and artifact.file.is_file() else None


def read_log(run: Run, runs: Runs, start: int) -> dict[str, Any]:
    """The log of a run from the byte `start` on, at most its last `MAX_LOG_PIECE` bytes.

    Returns
    -------
    dict
        ``text``; ``start`` and ``end``, the bytes that it was read from. Where ``start`` is another
        than requested, the bytes before it are left out.
    """
    executed = find_executed_run(run, runs)
    artifact = find_log(executed, runs)
    if artifact is None:
        return {"text": "", "start": 0, "end": 0}
    with open(artifact.file, "rb") as file:
        size = file.seek(0, os.SEEK_END)
        wanted = start if start <= size else 0  # beyond the end of a log that was replaced
        start = file.seek(max(wanted, size - MAX_LOG_PIECE))
        content = file.read(size - start)
    if start > wanted:  # in the middle of a line
        line_end = content.find(b"\n") + 1
        start, content = start + line_end, content[line_end:]
    if not executed.is_terminal:
        content = content[: content.rfind(b"\n") + 1] or content
    text, length = codecs.utf_8_decode(content, "replace", executed.is_terminal)
    return {"text": text, "start": start, "end": start + length}
