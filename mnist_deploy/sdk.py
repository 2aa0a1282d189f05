"""Call Azure's SDK: with a time-out, with errors in one line, and without its log on stderr."""

from __future__ import annotations

import json
import logging
import re
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

from tqdm.auto import tqdm

from .errors import WorkspaceError

if TYPE_CHECKING:
    from azureml.core import Workspace

T = TypeVar("T")

RESPONSE_TIMEOUT = 120.0  # seconds for the workspace to respond
TRANSFER_TIMEOUT = 3600.0  # seconds to upload or download the files of a model

_TICK, _BACKOFF = 1.0, 2.0  # seconds
_MAX_LISTED = 10  # names in an error message
# The SDK has unescaped some quotes: only a quote that is followed by more JSON ends the message.
_JSON_MESSAGE = re.compile(r'"message"\s*:\s*"((?:[^\\]|\\.)+?)"\s*(?=,\s*"|[}\]])', re.S)
_TRACEBACK = re.compile(r"Traceback \(most recent call last\):.*?\n(?=\S)", re.S)
_NO_CONNECTION = re.compile(  # as requests and azure-core word it
    r"host='([^']+)', port=(\d+)\): (?:Max retries exceeded|Failed to establish a new connection)"
    r".*?(?:\[Errno -?\d+\] ([\w ]+)|$)",
    re.S,
)
_SIGNED_QUERY = re.compile(r"\?[^\s'\")]*\bsig=[^\s'\")]*")


class DeadlineExceeded(Exception):
    """A call did not complete in time."""


class Deadline:
    """A point in time after which calls of the SDK are abandoned.

    Parameters
    ----------
    seconds : float, optional
        Seconds from now; by default `RESPONSE_TIMEOUT`.
    """

    def __init__(self, seconds: float | None = None) -> None:
        self.seconds = RESPONSE_TIMEOUT if seconds is None else seconds
        self._end = time.monotonic() + self.seconds
        self.on_tick: Callable[[], object] = lambda: None  # called about every second of a call

    def remaining(self) -> float:
        """Seconds until the deadline, at least 0."""
        return max(0.0, self._end - time.monotonic())

    def call(self, function: Callable[..., T], *args: object, **kwargs: object) -> T:
        """Call a function; raise `DeadlineExceeded` if it does not return before the deadline.

        The function runs in a daemon thread ``mnist_deploy-sdk-call``, because a call of
        the SDK may block. After the deadline the thread is abandoned, and its result discarded.
        """
        _silence_loggers()
        future: Future[T] = Future()

        def run() -> None:
            try:
                future.set_result(function(*args, **kwargs))
            except BaseException as error:
                future.set_exception(error)

        threading.Thread(target=run, daemon=True, name="mnist_deploy-sdk-call").start()
        while not wait([future], min(_TICK, self.remaining())).done:
            if not self.remaining():
                raise DeadlineExceeded(f"The call did not complete within {self.seconds:g} s.")
            self.on_tick()
        return future.result()

    @contextmanager
    def show_progress(self, title: str) -> Iterator[None]:
        """Show a title and the elapsed time on stderr within the block."""
        with tqdm(desc=title, bar_format="{desc} {elapsed}", leave=False) as bar:
            self.on_tick = bar.refresh
            yield

    def back_off(self) -> None:
        """Sleep two seconds before a request is repeated, or raise `DeadlineExceeded`."""
        if not self.remaining():
            raise DeadlineExceeded(f"The operation did not complete within {self.seconds:g} s.")
        time.sleep(min(_BACKOFF, self.remaining()))


@cache
def _silence_loggers() -> None:
    """Keep log records of the SDK off stderr if logging is not configured: they repeat errors."""
    for name in ("azureml", "azure", "msal", "msrest", "cli"):
        logging.getLogger(name).addHandler(logging.NullHandler())


def find_kernel() -> Any:
    """Return the Jupyter kernel of this process, or None outside of a notebook."""
    if "ipykernel" not in sys.modules:
        return None
    from IPython import get_ipython

    return getattr(get_ipython(), "kernel", None)


def reason(error: BaseException) -> str:
    """Return the message of an SDK's exception as one line that ends with a full stop.

    Without the JSON and the headers around the message, the traceback of the container, and the
    signatures of URLs.
    """
    inner = getattr(error, "error", None)  # SDK v2 wraps the message of the service
    text = str(getattr(inner, "message", "") or getattr(error, "message", "") or error)
    text = _json_message(text) or _connection_failure(text) or text
    text = _TRACEBACK.sub("", _SIGNED_QUERY.sub("", text))
    text = " ".join(text.split()) or type(error).__name__
    return text if text.endswith((".", "!", "?")) else text + "."


def _json_message(text: str) -> str | None:
    """The ``message`` of the JSON document in a text, if there is one."""
    found = _JSON_MESSAGE.search(text.replace("\\'", "'"))
    if found is None:
        return None
    try:
        return json.loads(f'"{found[1]}"', strict=False)
    except ValueError:  # the SDK has unescaped it already
        return found[1]


def _connection_failure(text: str) -> str | None:
    """Host, port and cause of a failed connection, if the text reports one."""
    found = _NO_CONNECTION.search(text)
    if found is None:
        return None
    cause = found[3] or "no connection"
    return f"{found[1]}:{found[2]} cannot be reached ({cause}); connect to the workspace again"


@contextmanager
def workspace_call(ws: Workspace, action: str) -> Iterator[None]:
    """Raise a `WorkspaceError` that names the workspace and the action which failed."""
    check_kind("ws", ws, "azureml.core.Workspace", "connect_workspace()")
    try:
        yield
    except Exception as error:
        message = f"Workspace {ws.name!r} could not {action}: {reason(error)}"
        raise WorkspaceError(message) from error


def check_kind(what: str, value: object, kind: str, source: str) -> None:
    """Raise a `TypeError` that names the call which returns an object of the expected class."""
    module, _, name = kind.rpartition(".")
    known = getattr(sys.modules.get(module), name, None)  # None: no object of the class exists
    if known is None or not isinstance(value, known):
        found = type(value).__name__
        raise TypeError(f"{what} is of type {found}; expected the {name} that {source} returns.")


def not_registered(ws: Workspace, what: str, version: object, known: Iterable[str]) -> str:
    """Return the message that an asset is not registered, with the registered names."""
    subject = what[0].upper() + what[1:] if version is None else f"Version {version} of {what}"
    ordered = sorted(known)
    listed = ", ".join(ordered[:_MAX_LISTED]) or "none"
    if len(ordered) > _MAX_LISTED:
        listed += f" and {len(ordered) - _MAX_LISTED} more"
    return (
        f"{subject} is not registered in workspace {ws.name!r}. Registered are: {listed}. "
        "prepare_workspace(ws) registers those of the tutorial."
    )
