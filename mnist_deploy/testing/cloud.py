"""How the services of a mocked workspace behave, and what reached them."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Generic, TypeVar
from unittest.mock import Mock

import numpy as np
import requests

T = TypeVar("T")
LONGEST = 30 * 24 * 3600.0  # seconds that a test may let pass
Answer = Callable[[np.ndarray], Any]  # images (n, features) in, labels out


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
        What the body holds, pixels divided by 255; None if it was refused unread.
    status : int or None
        Of the answer; None if there was none.
    """

    service: str
    body: bytes = field(repr=False)
    images: np.ndarray | None = field(repr=False)
    status: int | None


class MockedCloud:
    """Say here how services behave, and see here what reached them.

    What is said holds for the service that is named as ``service``, or for all, those that are
    deployed later included; what is said last holds. For SDK v2 that is the name of an endpoint,
    or ``"endpoint/deployment"``. At first every deployment becomes healthy,
    and a service answers at once what the ``predict`` of its registered model gives.

    Attributes
    ----------
    requests : list of ScoringRequest
        What was sent to the services, in order.
    calls : list of unittest.mock.call
        What was called of the SDK, in order, as ``call.Model.deploy(ws, "my-service", ...)``:
        `Model.register`, ``download``, ``delete`` and ``deploy``; `Environment.register` and
        ``get``; of services ``wait_for_deployment``, ``update``, ``delete``, ``run``,
        ``get_logs``, ``get_keys``, ``regen_key`` and ``get_access_token``, whose first argument
        is the service. Each is a mock as well: ``Model.deploy.assert_called_once()``.
    errors : list of Exception
        What the functions given to `answer_with` raised, and which connections were blocked.
        The first that `expect_error` does not name is raised when the mock ends.
    clock : Clock
        The time that the SDK and the helpers see; can take the place of the module `time` in
        the code that is tested.
    """

    def __init__(self, said: Said) -> None:
        self._said = said
        self.clock = Clock()
        self.requests: list[ScoringRequest] = []
        self.errors = said.errors
        self.spies = Mock()

    @property
    def calls(self) -> list[Any]:
        return self.spies.mock_calls

    def answer_with(self, source: Any, *, service: str | None = None) -> None:
        """Let services answer from a model, a function or a list of labels.

        Parameters
        ----------
        source : object with predict, callable, iterable of labels, int or Exception
            A function gets the images, float64 of shape (n, features), and returns their
            labels; what it raises becomes a 500, is in the service's logs and in ``errors``.
            The labels of a list are handed out one for each image, in their order. An int is
            the status of a refusal. An exception of `requests` is what the caller's connection
            ends with; any other is what ``run()`` of the scoring script raises: a 500.
        """
        self._said.answer(f"answer_with({_short(source)})", as_answer(source), service)

    def answer_in_turn(self, *sources: Any, service: str | None = None) -> None:
        """Let each source answer one request, in their order; a request too many is an error.

        Parameters
        ----------
        *sources
            As for `answer_with`; a list holds the labels of one request.
        """
        call = f"answer_in_turn({', '.join(map(_short, sources))})"
        answers = [_constant(each) if _is_list(each) else as_answer(each) for each in sources]
        self._said.answer(call, _ForEachRequest(answers, call), service)

    def refuse(self, status: int, message: str = "", *, service: str | None = None) -> None:
        """Let services answer every request with an HTTP status such as 401, 413 or 503.

        Parameters
        ----------
        status : int
        message : str
            By default the name of the status.
        """
        self._said.answer(f"refuse({status})", refusing(status, message), service)

    def time_out(self, *, service: str | None = None) -> None:
        """Let callers wait in vain for an answer; their time-outs pass on the mocked clock."""
        self._said.answer("time_out()", raising(requests.ReadTimeout()), service)

    def cut_off(self, *, service: str | None = None) -> None:
        """Let every connection to services be refused."""
        self._said.answer("cut_off()", raising(requests.ConnectionError("refused")), service)

    def delay(self, seconds: float, *, service: str | None = None) -> None:
        """Let every answer take its time on the mocked clock; callers may time out before it.

        Parameters
        ----------
        seconds : float
        """
        self._said.delay(f"delay({seconds:g})", seconds, service)

    def fail_init(
        self,
        error: str = "RuntimeError: init() was told to fail",
        *,
        service: str | None = None,
    ) -> None:
        """Let deployments that begin from now on fail.

        Parameters
        ----------
        error : str
            What is in the service's logs.
        """
        self._said.plan(f"fail_init({error!r})", Plan(init_error=error), service)

    def never_finish(self, *, service: str | None = None) -> None:
        """Let deployments that begin from now on stay Transitioning; time-outs pass at once."""
        self._said.plan("never_finish()", Plan(finishes=False), service)

    def expect_error(self, kind: type[Exception]) -> None:
        """Let such errors be among ``errors``, and not be raised at the end.

        Parameters
        ----------
        kind : subclass of Exception
        """
        self._said.expected.append(kind)

    def recover(self, *, service: str | None = None) -> None:
        """Take back what was said of services; what was never asked for remains so."""
        self._said.take_back(service)

    def assert_requests(self, *expected: tuple[str, int | None]) -> None:
        """Check that these requests reached the services, in this order, and no others.

        Parameters
        ----------
        *expected : (str, int or None)
            The name of the service, and the status of its answer, None if there was none.
        """
        came = [(request.service, request.status) for request in self.requests]
        if came != [*expected]:
            raise AssertionError(f"Expected were the requests {[*expected]}; there came {came}.")


class Clock:
    """The module `time`, but that sleeping takes none of it."""

    def __init__(self) -> None:
        self.slept = 0.0  # seconds

    def __getattr__(self, name: str) -> Any:
        genuine = getattr(time, name)
        if name in ("time", "monotonic", "perf_counter"):
            return lambda: genuine() + self.slept
        return genuine

    def sleep(self, seconds: float) -> None:
        self.slept += seconds
        if self.slept > LONGEST:
            raise WaitsForEver


@dataclass(frozen=True)
class Plan:
    """How a deployment is to turn out."""

    init_error: str | None = None
    finishes: bool = True


@dataclass
class _Word(Generic[T]):
    """Something that was said, as the test wrote it, and whether it has come to pass."""

    call: str
    meaning: T
    asked_for: bool = False


class _Words(Generic[T]):
    """What was said of one matter: the last word for each service, and for all."""

    def __init__(self) -> None:
        self.all: list[_Word[T]] = []
        self._last: dict[str | None, _Word[T]] = {}

    def say(self, call: str, meaning: T, service: str | None) -> None:
        if service is None:
            self._last.clear()
        self._last[service] = _Word(f"{call} of {service}" if service else call, meaning)
        self.all.append(self._last[service])

    def take_back(self, service: str | None) -> None:
        self._last.clear() if service is None else self._last.pop(service, None)

    def of(self, service: str) -> T | None:
        endpoint = service.partition("/")[0]
        found = (self._last.get(each) for each in (service, endpoint, None))
        word = next(filter(None, found), None)
        if word is None:
            return None
        word.asked_for = True
        return word.meaning


class Said:
    """All that a test said of its services: what is to be done, and what was never asked for."""

    def __init__(self) -> None:
        self._answers: _Words[Answer] = _Words()
        self._plans: _Words[Plan] = _Words()
        self._delays: _Words[float] = _Words()
        self.errors: list[Exception] = []
        self.expected: list[type[Exception]] = []
        self.answer, self.plan, self.delay = self._answers.say, self._plans.say, self._delays.say

    def note(self, error: Exception) -> Exception:
        """An error of the test's own, which must not end as an answer of the service."""
        self.errors.append(error)
        return error

    def answer_of(self, service: str) -> Answer | None:
        return self._answers.of(service)

    def plan_for(self, service: str) -> Plan:
        return self._plans.of(service) or Plan()

    def delay_of(self, service: str) -> float:
        """In seconds."""
        return self._delays.of(service) or 0.0

    def take_back(self, service: str | None) -> None:
        for words in (self._answers, self._plans, self._delays):
            words.take_back(service)

    def unexpected(self) -> list[Exception]:
        """The test's own errors, but for those that it expects."""
        return [error for error in self.errors if not isinstance(error, tuple(self.expected))]

    def unused(self) -> list[str]:
        """What never came to pass, a line for each."""
        lines = []
        words: list[_Word[Any]] = [*self._answers.all, *self._plans.all, *self._delays.all]
        for word in words:
            turns = word.meaning
            if not word.asked_for:
                lines.append(f"cloud.{word.call}: never asked for")
            elif isinstance(turns, _InTurn) and turns.left:
                lines.append(f"cloud.{word.call}: {len(turns.left)} of {turns.total} not asked for")
        for kind in self.expected:
            if not any(isinstance(error, kind) for error in self.errors):
                lines.append(f"cloud.expect_error({kind.__name__}): none was raised")
        return lines


class Refused(Exception):
    """The service answers with another status than 200."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class ScriptRefused(Refused):
    """It is ``run()`` that answers so."""


class ScriptRaised(ScriptRefused):
    """``run()`` raises, as it was told to: the cause of this."""

    def __init__(self) -> None:
        super().__init__(500, "run() of the scoring script raised; see the logs.")


class Silent(Exception):
    """The service does not answer."""


class WaitsForEver(TimeoutError):
    """There is no end to this, on the mocked clock either."""

    def __init__(self) -> None:
        super().__init__("This would wait for ever. Give it a time-out.")


class _InTurn:
    """Things that are handed out in their order, and no more than there are."""

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

    def __call__(self, images: np.ndarray) -> Any:
        return self.take(1)[0](images)


class _ForEachImage(_InTurn):
    unit = "image"

    def __call__(self, images: np.ndarray) -> Any:
        return self.take(len(images))


def as_answer(source: Any) -> Answer:
    """What answers for a service."""
    if isinstance(source, type) and issubclass(source, Exception):
        source = source()
    if isinstance(source, Exception):
        return raising(source)
    if isinstance(source, int):
        return refusing(source)
    if hasattr(source, "predict"):
        return source.predict
    if callable(source):
        return source
    return _ForEachImage(source, f"answer_with({_short(source)})")


def refusing(status: int, message: str = "") -> Answer:
    """A service that refuses whatever it is sent."""
    message = message or HTTPStatus(status).phrase  # or a ValueError, where it is said

    def answer(images: np.ndarray) -> Any:
        raise Refused(status, message)

    return answer


def raising(error: Exception) -> Answer:
    """A connection that ends with an error of `requests`, or a script that raises any other."""

    def answer(images: np.ndarray) -> Any:
        if isinstance(error, requests.Timeout):
            raise Silent
        if isinstance(error, requests.RequestException):
            raise error
        raise ScriptRaised from error

    return answer


def _constant(labels: Any) -> Answer:
    return lambda images: labels


def _is_list(source: Any) -> bool:
    return isinstance(source, (list, tuple, np.ndarray))


def _short(source: Any) -> str:
    text = repr(source)
    return text if len(text) <= 40 else f"{text[:37]}..."
