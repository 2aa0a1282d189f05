"""How the services of a mocked workspace behave, and what reached them."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Generic, TypeVar
from unittest.mock import Mock

import numpy as np
import requests

T = TypeVar("T")
MAX_SLEEP = 30 * 24 * 3600.0  # seconds on the mocked clock
Answer = Callable[[Any], Any]  # what the script gets, and what run() returns


@dataclass(frozen=True)
class ScoringRequest:
    """One request that reached a mocked service.

    Attributes
    ----------
    service : str
        Its name; ``"endpoint/deployment"`` for SDK v2.
    body : bytes
        As it was sent.
    images : ndarray of float64, shape (n, features), or None
        The rows of numbers in the body, pixels divided by 255; None if it has none, or was
        rejected unread.
    status : int or None
        Of the response; None if there was none.
    json : object
        The parsed body, where it is JSON.
    format : str
        ``json``, ``idx`` (an IDX file) or ``other``: `mnist_deploy.call_service` tries IDX first,
        and repeats in JSON what the script did not understand.
    """

    service: str
    body: bytes = field(repr=False)
    images: np.ndarray | None = field(repr=False)
    status: int | None
    json: Any = field(default=None, repr=False)
    format: str = "other"


class MockedCloud:
    """Sets how services behave, and records what reached them.

    A setting applies to the service named by ``service``, or to all services, later ones
    included; a later setting replaces an earlier one. For SDK v2 that is the name of an endpoint,
    or ``"endpoint/deployment"``. At first every deployment becomes healthy,
    and a service answers at once what the ``predict`` of its registered model returns.

    Attributes
    ----------
    requests : list of ScoringRequest
        What was sent to the services, in order.
    calls : list of unittest.mock.call
        What was called of SDK v1, in order, as ``call.Model.deploy(ws, "my-service", ...)``:
        `Model.register`, ``download``, ``delete`` and ``deploy``; `Environment.register` and
        ``get``; of services ``wait_for_deployment``, ``update``, ``delete``, ``run``,
        ``get_logs``, ``get_keys``, ``regen_key`` and ``get_access_token``, whose first argument
        is the service. Each is a mock as well: ``Model.deploy.assert_called_once()``. So are the
        methods of SDK v2's ``models``, ``environments``, ``online_endpoints`` and
        ``online_deployments``.
    errors : list of Exception
        What the functions given to `answer_with` raised, and which connections were blocked.
        The first that neither `expect_error` names nor the test itself caught is raised when
        the mock ends.
    clock : Clock
        The time that the SDK and the helpers see; can take the place of the module `time` in
        the code that is tested.
    """

    def __init__(self, behavior: Behavior) -> None:
        self._behavior = behavior
        self.clock = Clock()
        self.requests: list[ScoringRequest] = []
        self.errors = behavior.errors
        self.spies = Mock()

    @property
    def calls(self) -> list[Any]:
        return self.spies.mock_calls

    def answer_with(self, source: Any, *, service: str | None = None) -> None:
        """Let services answer from a model, a function or a value.

        Parameters
        ----------
        source : object with predict, callable, list, int, Exception or other value
            A function stands for the script's ``run()``. Of the tutorial's ``score.py`` it gets
            the images, float64 of shape (n, features); of any other script the parsed JSON, as
            an array where the document, or what is under its only key ``data``, is a list of
            numbers or of rows of numbers. What it returns is what ``run()`` would return: a
            dict, text, list, array, table or ``AMLResponse``. What it raises becomes a 500, is in
            the service's logs and in ``errors``.
            The labels of a list are handed out one for each row, in their order. An int is
            the status of an error response. An exception of `requests` is what the caller's
            connection ends with; any other is what ``run()`` of the scoring script raises: a
            500. A dict or a text is the answer to every request.
        """
        self._behavior.answer(f"answer_with({_short(source)})", as_answer(source), service)

    def answer_in_turn(self, *sources: Any, service: str | None = None) -> None:
        """Let each source answer one call of the script; a call too many is an error.

        Only what reaches the script counts: not a request without its key, nor an IDX file that
        a script of JSON does not read, which `call_service` then sends again in JSON.

        Parameters
        ----------
        *sources
            As for `answer_with`; a list holds the labels of one call.
        """
        call = f"answer_in_turn({', '.join(map(_short, sources))})"
        answers = [constant(each) if _is_list(each) else as_answer(each) for each in sources]
        self._behavior.answer(call, _ForEachRequest(answers, call), service)

    def refuse(self, status: int, message: str = "", *, service: str | None = None) -> None:
        """Let services answer every request with an HTTP status such as 401, 413 or 503.

        Parameters
        ----------
        status : int
        message : str
            By default the name of the status.
        """
        self._behavior.answer(f"refuse({status})", rejecting(status, message), service)

    def time_out(self, *, service: str | None = None) -> None:
        """Let no answer come; the time-outs of the callers pass on the mocked clock."""
        self._behavior.answer("time_out()", raising(requests.ReadTimeout()), service)

    def cut_off(self, *, service: str | None = None) -> None:
        """Let every connection to services be refused."""
        self._behavior.answer("cut_off()", raising(requests.ConnectionError("refused")), service)

    def delay(self, seconds: float, *, service: str | None = None) -> None:
        """Let every answer take its time on the mocked clock; callers may time out before it.

        Parameters
        ----------
        seconds : float
        """
        self._behavior.delay(f"delay({seconds:g})", seconds, service)

    def fail_init(
        self,
        error: str = "RuntimeError: init() failed as set by fail_init",
        *,
        service: str | None = None,
    ) -> None:
        """Let deployments that begin from now on fail.

        Parameters
        ----------
        error : str
            What is in the service's logs.
        """
        self._behavior.plan(f"fail_init({error!r})", Plan(init_error=error), service)

    def never_finish(self, *, service: str | None = None) -> None:
        """Let deployments that begin from now on stay Transitioning, until `recover`.

        Time-outs pass at once, on the mocked clock.
        """
        self._behavior.plan("never_finish()", Plan(finishes=False), service)

    def expect_error(self, kind: type[Exception]) -> None:
        """Let such errors be among ``errors``, and not be raised at the end.

        Parameters
        ----------
        kind : subclass of Exception
        """
        self._behavior.expected.append(kind)

    def recover(self, *, service: str | None = None) -> None:
        """Take back what was set for services; what was never used still counts as unused."""
        self._behavior.take_back(service)

    def assert_requests(self, *expected: tuple[str, int | None]) -> None:
        """Check that these requests reached the services, in this order, and no others.

        Parameters
        ----------
        *expected : (str, int or None)
            The name of the service, and the status of its answer, None if there was none.
        """
        found = [(request.service, request.status) for request in self.requests]
        if found != [*expected]:
            raise AssertionError(f"Expected the requests {[*expected]}; there were {found}.")


class Clock:
    """The module `time`, except that sleeping returns at once."""

    def __init__(self) -> None:
        self.slept = 0.0  # seconds

    def __getattr__(self, name: str) -> Any:
        genuine = getattr(time, name)
        if name in ("time", "monotonic", "perf_counter"):
            return lambda: genuine() + self.slept
        return genuine

    def sleep(self, seconds: float) -> None:
        self.slept += seconds
        if self.slept > MAX_SLEEP:
            raise EndlessWait


@dataclass(frozen=True)
class Plan:
    """The result that a deployment will have."""

    init_error: str | None = None
    finishes: bool = True


@dataclass
class _Setting(Generic[T]):
    """A call of the test's that sets something, and whether that was used."""

    call: str
    value: T
    is_used: bool = False


class _Settings(Generic[T]):
    """What was set of one matter: the last setting for each service, and for all."""

    def __init__(self) -> None:
        self.all: list[_Setting[T]] = []
        self._last: dict[str | None, _Setting[T]] = {}

    def add(self, call: str, value: T, service: str | None) -> None:
        if service is None:
            self._last.clear()
        self._last[service] = _Setting(f"{call} of {service}" if service else call, value)
        self.all.append(self._last[service])

    def take_back(self, service: str | None) -> None:
        self._last.clear() if service is None else self._last.pop(service, None)

    def find(self, service: str) -> T | None:
        endpoint = service.partition("/")[0]
        found = (self._last.get(each) for each in (service, endpoint, None))
        setting = next(filter(None, found), None)
        if setting is None:
            return None
        setting.is_used = True
        return setting.value


class Behavior:
    """The settings of a test for its services: which are unused, and which errors they caused."""

    def __init__(self) -> None:
        self._answers: _Settings[Answer] = _Settings()
        self._plans: _Settings[Plan] = _Settings()
        self._delays: _Settings[float] = _Settings()
        self.errors: list[Exception] = []
        self.expected: list[type[Exception]] = []
        self.answer, self.plan, self.delay = self._answers.add, self._plans.add, self._delays.add
        self.on_change: Callable[[], object] = lambda: None
        self._caught: set[int] = set()

    def note(self, error: Exception) -> Exception:
        """Keep an error of the test's own, which must not end as an answer of the service."""
        self.errors.append(error)
        return error

    def note_caught(self, error: BaseException | None) -> None:
        """Record that the test itself has caught an error, and those it was raised from."""
        self._caught |= set(map(id, chain(error)))

    def answer_of(self, service: str) -> Answer | None:
        return self._answers.find(service)

    def plan_for(self, service: str) -> Plan:
        return self._plans.find(service) or Plan()

    def delay_of(self, service: str) -> float:
        """In seconds."""
        return self._delays.find(service) or 0.0

    def take_back(self, service: str | None) -> None:
        for settings in (self._answers, self._plans, self._delays):
            settings.take_back(service)
        self.on_change()

    def unexpected(self) -> list[Exception]:
        """The errors that the test neither expects nor has caught."""
        return [
            error
            for error in self.errors
            if not isinstance(error, tuple(self.expected)) and id(error) not in self._caught
        ]

    def unused(self) -> list[str]:
        """What was set and never used, a line for each."""
        lines = []
        settings: list[_Setting[Any]] = [*self._answers.all, *self._plans.all, *self._delays.all]
        for setting in settings:
            turns = setting.value
            if not setting.is_used:
                lines.append(f"cloud.{setting.call}: never asked for")
            elif isinstance(turns, _InTurn) and turns.left:
                lines.append(
                    f"cloud.{setting.call}: {len(turns.left)} of {turns.total} not asked for"
                )
        for kind in self.expected:
            if not any(isinstance(error, kind) for error in self.errors):
                lines.append(f"cloud.expect_error({kind.__name__}): none was raised")
        return lines


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error, and those that it was raised from."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


class Rejected(Exception):
    """The service itself answers with another status than 200, not its script."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class ScriptRaised(Exception):
    """``run()`` raises: the cause of this."""


class Silent(Exception):
    """No answer comes."""


class EndlessWait(TimeoutError):
    """A wait without an end, on the mocked clock as well."""

    def __init__(self) -> None:
        super().__init__("The call would wait without end. Pass a time-out.")


class _InTurn:
    """Values that are returned in their order, each once."""

    unit = ""

    def __init__(self, things: Iterable[Any], call: str) -> None:
        self.left = deque(things)
        self.total, self._call = len(self.left), call

    def take(self, number: int) -> list[Any]:
        if number > len(self.left):
            raise AssertionError(
                f"cloud.{self._call} is enough for {self.total} {self.unit}s; more were sent."
            )
        return [self.left.popleft() for _ in range(number)]


class _ForEachRequest(_InTurn):
    unit = "request"

    @property
    def ignores_body(self) -> bool:
        return bool(self.left) and getattr(self.left[0], "ignores_body", False)

    def __call__(self, data: Any) -> Any:
        return self.take(1)[0](data)


class _ForEachRow(_InTurn):
    unit = "image"

    def __call__(self, data: Any) -> Any:
        return self.take(len(data) if isinstance(data, (list, np.ndarray)) else 1)


def as_answer(source: Any) -> Answer:
    """The function that answers for a script."""
    if isinstance(source, type) and issubclass(source, Exception):
        source = source()
    if isinstance(source, Exception):
        return raising(source)
    if isinstance(source, int):
        return rejecting(source)
    if hasattr(source, "predict"):
        return source.predict
    if callable(source) and not hasattr(source, "status_code"):  # a response is a WSGI app
        return source
    if _is_value(source):
        return constant(source)
    return _ForEachRow(source, f"answer_with({_short(source)})")


def constant(value: Any) -> Answer:
    return lambda data: value


def rejecting(status: int, message: str = "") -> Answer:
    """A service that answers every request with an error."""
    message = message or HTTPStatus(status).phrase  # or a ValueError, where it is set

    def answer(data: Any) -> Any:
        raise Rejected(status, message)

    return ignoring_body(answer)


def raising(error: Exception) -> Answer:
    """A connection that ends with an error of `requests`, or a script that raises any other."""

    def answer(data: Any) -> Any:
        if isinstance(error, requests.Timeout):
            raise Silent
        if isinstance(error, requests.RequestException):
            raise error
        raise ScriptRaised from error

    return ignoring_body(answer)


def ignoring_body(answer: Any) -> Answer:
    """Have an answer come before the request's body is read."""
    answer.ignores_body = True
    return answer


def _is_value(source: Any) -> bool:
    """Whether it is one answer, and no list of labels."""
    if isinstance(source, (dict, str, bytes)) or source is None:
        return True
    return hasattr(source, "status_code") or hasattr(source, "columns")


def _is_list(source: Any) -> bool:
    return isinstance(source, (list, tuple, np.ndarray))


def _short(source: Any) -> str:
    text = repr(source)
    return text if len(text) <= 40 else f"{text[:37]}..."
