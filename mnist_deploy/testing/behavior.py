"""The settings of a test for its services, and the errors raised in the services."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import numpy as np
import requests

# From what the script receives to what run() returns; or an error, whatever the request holds.
Answer = Callable[[Any], Any] | Exception


class Rejected(Exception):
    """The service itself sends an error response; its script is not called."""

    def __init__(self, status: int, message: str = "") -> None:
        super().__init__(message or HTTPStatus(status).phrase)  # a ValueError: an unknown status
        self.status = status


class ScriptRaised(Exception):
    """``run()`` of the scoring script raises the cause of this error."""


class NoResponse(Exception):
    """The service never responds."""


class EndlessWait(TimeoutError):
    """A call without a time-out that would never return."""

    def __init__(self) -> None:
        super().__init__("The call would wait without end. Pass a time-out.")


@dataclass(frozen=True)
class Plan:
    """The outcome of a deployment."""

    init_error: str | None = None
    finishes: bool = True


@dataclass
class Setting:
    """One call of a method of `MockedCloud`; `service` is None if it applies to all services."""

    kind: str  # answer, plan or delay
    call: str
    value: Any
    service: str | None
    is_used: bool = False
    is_active: bool = True


class Behavior:
    """All settings of a test, and the errors that they have caused."""

    def __init__(self) -> None:
        self.errors: list[Exception] = []  # from the test's functions, and blocked connections
        self.expected: list[type[Exception]] = []  # classes that do not fail the test
        self.on_remove: Callable[[], object] = lambda: None
        self._settings: list[Setting] = []
        self._caught: set[int] = set()

    def add(self, kind: str, call: str, value: Any, service: str | None) -> None:
        name = f"{call} of {service}" if service else call
        self._settings.append(Setting(kind, name, value, service))

    def find(self, kind: str, service: str, default: Any) -> Any:
        """Return the value of the last setting for a service, or the default."""
        names = (service, service.partition("/")[0], None)
        for setting in reversed(self._settings):
            if setting.is_active and setting.kind == kind and setting.service in names:
                setting.is_used = True
                return setting.value
        return default

    def fails(self, service: str) -> bool:
        """Whether the next request to a service is set to fail, whatever its body is."""
        answer = self.find("answer", service, None)
        if isinstance(answer, AnswerInTurn):
            answer = answer.left[0] if answer.left else None
        return isinstance(answer, Exception)

    def remove(self, service: str | None) -> None:
        for setting in self._settings:
            if service in (None, setting.service):
                setting.is_active = False
        self.on_remove()

    def record(self, error: Exception) -> Exception:
        """Record an error of a test's function; the test fails unless it catches the error."""
        self.errors.append(error)
        return error

    def record_caught(self, error: BaseException | None) -> None:
        """Mark an error and its causes as caught by the test."""
        self._caught |= set(map(id, causes(error)))

    def unexpected_errors(self) -> list[Exception]:
        """Return the errors that the test neither expects nor has caught."""
        return [
            error
            for error in self.errors
            if not isinstance(error, tuple(self.expected)) and id(error) not in self._caught
        ]

    def unused(self) -> list[str]:
        """Return a line for each setting that was not used, or not completely."""
        lines = []
        for setting in self._settings:
            turns = setting.value
            if not setting.is_used:
                lines.append(f"cloud.{setting.call}: never used")
            elif isinstance(turns, InTurn) and turns.left:
                lines.append(f"cloud.{setting.call}: {len(turns.left)} of {turns.total} not used")
        for kind in self.expected:
            if not any(isinstance(error, kind) for error in self.errors):
                lines.append(f"cloud.expect_error({kind.__name__}): none was raised")
        return lines


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and its causes."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


class InTurn:
    """Values used in order, each once."""

    unit: str

    def __init__(self, values: Iterable[Any], call: str) -> None:
        self.left = deque(values)
        self.total, self._call = len(self.left), call

    def take(self, number: int) -> list[Any]:
        if number > len(self.left):
            raise AssertionError(
                f"cloud.{self._call} is enough for {self.total} {self.unit}s; more were sent."
            )
        return [self.left.popleft() for _ in range(number)]


class AnswerInTurn(InTurn):
    unit = "request"

    def __call__(self, data: Any) -> Any:
        return respond(self.take(1)[0], data)


class LabelInTurn(InTurn):
    unit = "image"

    def __call__(self, data: Any) -> Any:
        return self.take(len(data) if isinstance(data, (list, np.ndarray)) else 1)


def as_answer(source: Any) -> Answer:
    """Convert a source of `MockedCloud.respond_with`."""
    if isinstance(source, type) and issubclass(source, Exception):
        source = source()
    if isinstance(source, Exception):
        return as_failure(source)
    if isinstance(source, int):
        return Rejected(source)
    if hasattr(source, "predict"):
        return source.predict
    if callable(source) and not hasattr(source, "status_code"):  # a response is a WSGI app
        return source
    is_one_answer = isinstance(source, (dict, str, bytes, type(None)))
    if is_one_answer or hasattr(source, "status_code") or hasattr(source, "columns"):
        return lambda data: source
    return LabelInTurn(source, f"respond_with({shorten(source)})")


def as_answer_in_turn(source: Any) -> Answer:
    """Convert a source of `MockedCloud.respond_in_turn`; a list is the response to one request."""
    is_list = isinstance(source, (list, tuple, np.ndarray))
    return (lambda data: source) if is_list else as_answer(source)


def as_failure(error: Exception) -> Exception:
    """Convert an error: one of `requests` ends the connection, ``run()`` raises any other."""
    if isinstance(error, requests.Timeout):
        return NoResponse()
    if isinstance(error, requests.RequestException):
        return error
    failure = ScriptRaised()
    failure.__cause__ = error
    return failure


def respond(answer: Answer, data: Any) -> Any:
    """Return the result of ``run()`` for the data, or raise the error that was set."""
    if isinstance(answer, Exception):
        raise answer
    return answer(data)


def shorten(source: Any) -> str:
    text = repr(source)
    return text if len(text) <= 40 else f"{text[:37]}..."
