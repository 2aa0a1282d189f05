"""The log of a container: output of its processes and messages of its supervisor, bounded."""

from __future__ import annotations

import contextlib
import os
import re
from datetime import UTC, datetime
from pathlib import Path

MAX_SIZE = 16 << 20  # bytes
TRACEBACK = "Traceback (most recent call last):\n"
# Microsoft's server raises an exception of its own from that of the script.
CAUSE = "\n\nThe above exception was the direct cause of the following exception:\n\n"
LOG_LINE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d")  # where a traceback has ended
MAX_ERROR = 500  # characters of an error that is shown in one line


class Log:
    """The file that the processes of a container append to."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def append(self, line: str) -> None:
        stamp = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S")
        # A full disk, or a folder that is being removed, must not end a supervisor.
        with contextlib.suppress(OSError), open(self.file, "a", encoding="utf-8") as file:
            file.write(f"{stamp} container - {line}\n")

    def tail(self, lines: int) -> str:
        """The last lines; an empty text for a number below 1."""
        if lines <= 0:
            return ""
        return "\n".join(self._end(MAX_SIZE).decode("utf-8", "replace").splitlines()[-lines:])

    def trim(self) -> None:
        """Drop the older half of a file that exceeds `MAX_SIZE`."""
        with contextlib.suppress(OSError):
            if self.file.stat().st_size > MAX_SIZE:
                kept = self._end(MAX_SIZE // 2)
                with open(self.file, "ab") as log:  # as the processes write: at its end
                    log.truncate(0)
                    log.write(kept.partition(b"\n")[2])

    def _end(self, size: int) -> bytes:
        try:
            with open(self.file, "rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - size))
                return file.read()
        except FileNotFoundError:
            return b""


def script_error(log: str) -> str:
    """The exception in the log that ended the import of a script or ``init()``, in one line.

    An empty text if there is none. The message of a missing module is followed by a hint, because
    the module may lie beside the script and was not uploaded.
    """
    before, found, _ = log.rpartition(CAUSE)
    _, found, traceback = (before if found else log).rpartition(TRACEBACK)
    if not found:
        return ""
    lines = []
    for line in traceback.splitlines():
        if LOG_LINE.match(line):
            break
        lines.append(line)
    messages = [line for line in lines if line and not line.startswith(" ")]
    error = messages[0][:MAX_ERROR] if messages else ""
    missing = re.fullmatch(r"ModuleNotFoundError: No module named '(\w+)'", error)
    if missing:
        error += (
            f". If {missing[1]}.py lies beside the script, upload its folder: "
            "InferenceConfig(source_directory=...) or CodeConfiguration(code=...); if it is a "
            "package, the environment must list it"
        )
    return error
