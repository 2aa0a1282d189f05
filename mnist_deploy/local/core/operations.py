"""Long-running operations: accepted at once, polled until they have ended."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable
from datetime import UTC, datetime

from .faults import Fault, NotFound
from .records import now

MAX_OPERATIONS = 1000  # older operations can no longer be polled


class Operation:
    """A long-running operation: its state and its progress messages.

    Attributes
    ----------
    state : str
        ``Running``, ``Succeeded`` or ``Failed``.
    error : Fault or None
        The reason of a failure.
    log : list of (datetime, str)
    resource : str or None
        The URL path of the resource that the operation created.
    was_polled : bool
        A client has requested the state of the operation.
    """

    def __init__(
        self,
        kind: str,
        resource: str | None,
        wait: Callable[[threading.Event, float], object],
    ) -> None:
        self.id = str(uuid.uuid4())
        self.kind = kind
        self.resource = resource
        self.state = "Running"
        self.was_polled = False
        self.error: Fault | None = None
        self.log: list[tuple[datetime, str]] = []
        self.created, self.ended = now(), ""
        self._done, self._wait = threading.Event(), wait

    def add_log_line(self, line: str) -> None:
        self.log.append((datetime.now(UTC), line))

    def finish(self, error: Fault | None = None) -> None:
        self.error, self.ended = error, now()
        self.state = "Failed" if error else "Succeeded"
        self._done.set()

    def wait(self, seconds: float) -> None:
        """Return when the operation has ended, or after `seconds`."""
        self._wait(self._done, seconds)


class Operations:
    """The latest operations, by their ids.

    Parameters
    ----------
    wait : callable
        Waits for an event, at most for a number of seconds.
    """

    def __init__(self, wait: Callable[[threading.Event, float], object]) -> None:
        self._wait = wait
        self._lock = threading.Lock()
        self._known: dict[str, Operation] = {}

    def begin(self, kind: str, resource: str | None = None) -> Operation:
        operation = Operation(kind, resource, self._wait)
        with self._lock:
            self._known[operation.id] = operation
            while len(self._known) > MAX_OPERATIONS:
                del self._known[next(iter(self._known))]
        return operation

    def get(self, operation_id: str) -> Operation:
        operation = self._known.get(operation_id)
        if operation is None:
            raise NotFound("operation", operation_id)
        return operation
