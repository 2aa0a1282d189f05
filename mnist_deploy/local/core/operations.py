"""Long-running operations: what the SDK polls while it waits."""

from __future__ import annotations

import threading
import uuid
from datetime import datetime, timezone
from typing import Any

from .records import now

Document = dict[str, Any]


class Operation:
    """Something that takes a while: its state, and the log that the SDK streams."""

    def __init__(self, kind: str) -> None:
        self.id = str(uuid.uuid4())
        self.kind = kind
        self.state = "Running"
        self.error: Document | None = None
        self.created, self.ended = now(), ""
        self.resource: str | None = None
        self._log = ""
        self._done = threading.Event()

    def say(self, line: str) -> None:
        """Add a line to the log; # and | are the separators of its format."""
        stamp = datetime.now(timezone.utc).strftime("%Y%m%d%H%M%S")
        self._log += f"{stamp}|{line.replace('#', ' ').replace('|', ' ')}#"

    def log_after(self, offset: int) -> str:
        return self._log[offset:]

    def finish(self, error: Document | None = None) -> None:
        self.state = "Failed" if error else "Succeeded"
        self.error, self.ended = error, now()
        self._done.set()

    def wait(self, seconds: float) -> None:
        self._done.wait(seconds)


def failure(code: str, message: str) -> Document:
    return {"code": code, "statusCode": 400, "message": message, "details": []}
