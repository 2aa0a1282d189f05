"""Call Azure's SDK: with a limit in time, with errors in one line, and without its noise."""

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
from typing import TYPE_CHECKING, TypeVar

from tqdm.auto import tqdm

from .errors import WorkspaceError

if TYPE_CHECKING:
    from azureml.core import Workspace

T = TypeVar("T")

ANSWER_LIMIT = 120.0  # seconds for the workspace to answer
TRANSFER_LIMIT = 3600.0  # seconds for a model's files to go up or down

# The SDK logs what it raises, raw, which reaches stderr where nobody has set up logging.
for _name in ("azureml", "azure", "msal", "msrest", "cli"):
    logging.getLogger(_name).addHandler(logging.NullHandler())

_TICK, _PAUSE = 1.0, 2.0  # seconds
_LISTED = 10  # names in an error message
# A quote within ends it only where more of the JSON follows: the SDK has unescaped some.
_ANSWER = re.compile(r'"message"\s*:\s*"((?:[^\\]|\\.)+?)"\s*(?=,\s*"|[}\]])', re.S)
_TRACEBACK = re.compile(r"Traceback \(most recent call last\):.*?\n(?=\S)", re.S)
_NO_CONNECTION = re.compile(  # as requests tells it, and as azure-core does
    r"host='([^']+)', port=(\d+)\): (?:Max retries exceeded|Failed to establish a new connection)"
    r".*?(?:\[Errno -?\d+\] ([\w ]+)|$)",
    re.S,
)
_SIGNATURE = re.compile(r"\?[^\s'\")]*\bsig=[^\s'\")]*")


class DeadlinePassed(Exception):
    """A call did not end in time."""


class Deadline:
    """A moment, some seconds from now, after which nobody waits; the SDK's own waits have none.

    By default they are as many as a workspace may need to answer.
    """

    def __init__(self, seconds: float | None = None) -> None:
        self.seconds = ANSWER_LIMIT if seconds is None else seconds
        self._end = time.monotonic() + self.seconds
        self.tick: Callable[[], object] = lambda: None  # called about every second

    def left(self) -> float:
        """Seconds until then, not less than 0."""
        return max(0.0, self._end - time.monotonic())

    def call(self, function: Callable[..., T], *args: object, **kwargs: object) -> T:
        """Return what a function returns, or raise what it raises, or `DeadlinePassed`.

        In the last case it goes on in its own thread, and nobody hears of it.
        """
        future: Future[T] = Future()

        def run() -> None:
            try:
                future.set_result(function(*args, **kwargs))
            except BaseException as error:
                future.set_exception(error)

        threading.Thread(target=run, daemon=True).start()
        while not wait([future], min(_TICK, self.left())).done:
            if not self.left():
                raise DeadlinePassed(f"There was no answer within {self.seconds:g} s.")
            self.tick()
        return future.result()

    @contextmanager
    def shown(self, what: str) -> Iterator[None]:
        """Show on stderr what goes on meanwhile, and for how long."""
        with tqdm(desc=what, bar_format="{desc} {elapsed}", leave=False) as bar:
            self.tick = bar.refresh
            yield

    def pause(self) -> None:
        """Wait two seconds before something is asked again; `DeadlinePassed` if none are left."""
        if not self.left():
            raise DeadlinePassed(f"It did not come about within {self.seconds:g} s.")
        time.sleep(min(_PAUSE, self.left()))


def reason(error: BaseException) -> str:
    """What an error of the SDK says to a person: one line that ends with a stop.

    Leaves out the JSON and the headers around the message, and the signatures of addresses.
    """
    refusal = getattr(error, "error", None)  # SDK v2 puts more around it
    text = str(getattr(refusal, "message", "") or getattr(error, "message", "") or error)
    if answer := _ANSWER.search(text.replace("\\'", "'")):
        try:
            text = json.loads(f'"{answer[1]}"', strict=False)
        except ValueError:  # the SDK has unescaped it before
            text = answer[1]
    elif found := _NO_CONNECTION.search(text):
        why = found[3] or "no connection"
        text = f"{found[1]}:{found[2]} cannot be reached ({why}); connect to the workspace again"
    text = _TRACEBACK.sub("", _SIGNATURE.sub("", text))
    text = " ".join(text.split()) or type(error).__name__
    return text if text.endswith((".", "!", "?")) else text + "."


@contextmanager
def asking(ws: Workspace, what: str) -> Iterator[None]:
    """Say what was asked of the workspace where that fails."""
    check_kind("ws", ws, "azureml.core.Workspace", "connect_workspace()")
    try:
        yield
    except Exception as error:
        raise WorkspaceError(f"Workspace {ws.name!r} could not {what}: {reason(error)}") from error


def check_kind(what: str, value: object, kind: str, source: str) -> None:
    """Say where to get what a function takes, to whoever passes something else."""
    module, _, name = kind.rpartition(".")
    known = getattr(sys.modules.get(module), name, None)  # where it was not imported nothing is one
    if known is None or not isinstance(value, known):
        found = type(value).__name__
        raise TypeError(f"{what} is of type {found}; expected the {name} that {source} gives.")


def not_registered(ws: Workspace, what: str, version: object, known: Iterable[str]) -> str:
    """Say that there is no such model or environment, and name what is registered: not too much."""
    ordered = sorted(known)
    more = f" and {len(ordered) - _LISTED} more" if len(ordered) > _LISTED else ""
    return (
        f"{what[0].upper() + what[1:] if version is None else f'Version {version} of {what}'} is "
        f"not registered in workspace {ws.name!r}. Registered are: "
        f"{', '.join(ordered[:_LISTED]) or 'none'}{more}. prepare_workspace(ws) registers the "
        "tutorial's."
    )
