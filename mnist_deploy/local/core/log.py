"""What a container's processes print, and what happened to them: one file of limited size."""

from __future__ import annotations

import contextlib
import os
from datetime import UTC, datetime
from pathlib import Path

LIMIT = 16 << 20  # bytes


class Log:
    """The file that the processes of a container append to."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def append(self, line: str) -> None:
        stamp = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S")
        # A full disk, or a folder that is being removed, must not end who watches a process.
        with contextlib.suppress(OSError), open(self.file, "a", encoding="utf-8") as file:
            file.write(f"{stamp} container - {line}\n")

    def tail(self, lines: int) -> str:
        """The last lines; a negative number is none."""
        if lines <= 0:
            return ""
        return "\n".join(self._end(LIMIT).decode("utf-8", "replace").splitlines()[-lines:])

    def trim(self) -> None:
        """Drop the older half of what is beyond the limit."""
        with contextlib.suppress(OSError):
            if self.file.stat().st_size > LIMIT:
                kept = self._end(LIMIT // 2)
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
