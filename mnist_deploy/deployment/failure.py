"""Show the progress of a deployment, and report a failure with state, log and advice."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ..errors import DeploymentError, DeploymentTimeout
from ..sdk import Deadline, reason

LOG_LINES = 30
_ERROR = re.compile(r"^(?:\w+\.)*\w*(?:Error|Exception|Exit)\b.*$", re.M)
_MISSING_MODULE = re.compile(r"ModuleNotFoundError: No module named '([^']+)'")


@dataclass(frozen=True)
class Attempt:
    """A deployment in progress: texts for its messages, and functions that read state and log.

    Attributes
    ----------
    name : str
        The name of the service or endpoint, for the progress display.
    subject : str
        The beginning of each message, such as "The service 'digits'".
    interrupted : str
        The message after Ctrl-C.
    retry : str
        The last sentence of the advice.
    read_state : callable
        Returns the state after an exception; None if nothing was deployed.
    read_log : callable
        Returns the log after an exception.
    """

    name: str
    subject: str
    interrupted: str
    retry: str
    read_state: Callable[[Exception], str | None]
    read_log: Callable[[Exception], str]


@contextmanager
def report_deployment(attempt: Attempt, deadline: Deadline) -> Iterator[None]:
    """Show progress within the block, and raise a failure as `DeploymentError`."""
    try:
        with deadline.show_progress(f"deploying {attempt.name}"):
            yield
    except KeyboardInterrupt:
        print(f"Interrupted. {attempt.interrupted}")
        raise
    except DeploymentError:
        raise
    except Exception as error:
        raise _build_error(attempt, deadline, error) from error


def _build_error(attempt: Attempt, deadline: Deadline, error: Exception) -> DeploymentError:
    """Return the exception for a failure, with state, log and advice."""
    kind, sentences = DeploymentError, [f"{attempt.subject} could not be deployed: {reason(error)}"]
    if not deadline.remaining():  # the SDK's own time-out may have been reached first
        kind = DeploymentTimeout
        sentences = [f"{attempt.subject} was not healthy within {deadline.seconds:g} s.",
                     reason(error)]  # fmt: skip
    state, logs = attempt.read_state(error), ""
    if state is None:
        return kind(" ".join(sentences))
    sentences.append(f"Its state is {state}.")
    try:
        logs = "\n".join(attempt.read_log(error).splitlines()[-LOG_LINES:])
    except Exception as unreadable:
        sentences.append(f"The log cannot be read: {reason(unreadable)}")
    if logs:
        sentences.append(f"The last lines of its log:\n\n{logs}\n")
    message = f"{' '.join(sentences)}\n{build_advice(kind, logs)} {attempt.retry}"
    return kind(message, state=state, logs=logs)


def build_advice(kind: type[DeploymentError], logs: str) -> str:
    """Return advice on the next step, depending on the first error in a log."""
    if found := _ERROR.search(logs):
        return f"The first error: {found[0]}\n{_error_advice(found[0])}"
    if kind is DeploymentTimeout:
        return "The log has no error: init() may need more time. Pass a longer timeout."
    return "Correct the cause that is named above."


def _error_advice(error: str) -> str:
    missing = _MISSING_MODULE.match(error)
    if missing is None:
        return "Correct its cause."
    module = missing[1].partition(".")[0]
    if Path(f"{module}.py").is_file() or Path(module).is_dir():
        return (
            f"{module} is a module of this folder, which was not uploaded: pass the folder as "
            "source_directory."
        )
    return f"Add the package that provides {module} to the environment."
