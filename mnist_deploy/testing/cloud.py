"""Settings of the services of a mocked workspace, and the recorded requests to the services."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import Mock

import numpy as np
import requests

from .behavior import (
    AnswerInTurn,
    Behavior,
    EndlessWait,
    NoResponse,
    Plan,
    Rejected,
    as_answer,
    as_answer_in_turn,
    shorten,
)

MAX_SLEEP = 30 * 24 * 3600.0  # seconds on the mocked clock


@dataclass(frozen=True)
class ScoringRequest:
    """A request that a mocked service received.

    Attributes
    ----------
    service : str
        The name of the service; ``"endpoint/deployment"`` for SDK v2.
    body : bytes
    images : ndarray of float64, shape (n, features), or None
        The rows of numbers in the body, pixels divided by 255; None if the body has no such rows,
        or was not read.
    status : int or None
        The status of the response; None without a response.
    json : object
        The parsed body of a JSON request.
    format : str
        ``json``, ``idx`` (an IDX file) or ``other``.
    """

    service: str
    body: bytes = field(repr=False)
    images: np.ndarray | None = field(repr=False)
    status: int | None
    json: Any = field(default=None, repr=False)
    format: str = "other"


class MockedCloud:
    """Configures the mocked services, and records the requests to the services.

    A setting applies to the service named by ``service``, or to all present and future services;
    a later setting replaces an earlier one. For SDK v2, ``service`` is the name of an endpoint, or
    ``"endpoint/deployment"``. Without settings every deployment becomes healthy, and a service
    responds at once with the ``predict`` result of its registered model.

    Attributes
    ----------
    requests : list of ScoringRequest
        The requests in order of arrival.
    calls : list of unittest.mock.call
        The calls of SDK v1's public functions, in order, as
        ``call.Model.deploy(ws, "my-service", ...)``. Each of these functions is a mock:
        ``Model.deploy.assert_called_once()``. The methods of SDK v2's ``models``,
        ``environments``, ``online_endpoints`` and ``online_deployments`` are mocks as well.
    errors : list of Exception
        Exceptions of the functions passed to `respond_with`, and blocked connections. When the mock
        ends, it raises the first error that the test neither caught nor passed to `expect_error`.
    clock : Clock
        The clock of the SDK and the helpers; it can replace the module `time` in the code that is
        tested.
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

    def respond_with(self, source: Any, *, service: str | None = None) -> None:
        """Set the responses of services: from a model, a function or a value.

        Parameters
        ----------
        source : object with predict, callable, list, int, Exception or other value
            A function replaces the script's ``run()``. For the tutorial's ``score.py`` its
            argument is the images, float64 of shape (n, features). For any other script the
            argument is the parsed JSON, as an array if the document, or the value of its only key
            ``data``, is a list of numbers or of rows of numbers. The return value is that of
            ``run()``: a dict, text, list, array, table or ``AMLResponse``. An exception of the
            function causes status 500, and is recorded in the service's logs and in ``errors``.
            A list holds one label for each row. An int is the status of an error response. An
            exception of `requests` ends the caller's connection; any other is raised by ``run()``
            of the scoring script. A dict or a text is the response to every request.
        """
        self._behavior.add("answer", f"respond_with({shorten(source)})", as_answer(source), service)

    def respond_in_turn(self, *sources: Any, service: str | None = None) -> None:
        """Set one source for each call of the script, in order; further calls are errors.

        Only requests that call the script are counted. Not counted are requests without the key,
        and an IDX file for a script that reads only JSON: `call_service` repeats it as JSON.

        Parameters
        ----------
        *sources
            As for `respond_with`; a list holds the labels of one call.
        """
        call = f"respond_in_turn({', '.join(map(shorten, sources))})"
        answers = AnswerInTurn(map(as_answer_in_turn, sources), call)
        self._behavior.add("answer", call, answers, service)

    def reject(self, status: int, message: str = "", *, service: str | None = None) -> None:
        """Reject every request with an HTTP status such as 401, 413 or 503.

        Parameters
        ----------
        status : int
        message : str
            The message of the response; default: the standard phrase of the status.
        """
        self._behavior.add("answer", f"reject({status})", Rejected(status, message), service)

    def time_out(self, *, service: str | None = None) -> None:
        """Never respond; the callers' time-outs pass on the mocked clock."""
        self._behavior.add("answer", "time_out()", NoResponse(), service)

    def cut_off(self, *, service: str | None = None) -> None:
        """Reject connections to services."""
        error = requests.ConnectionError("Connection refused.")
        self._behavior.add("answer", "cut_off()", error, service)

    def delay(self, seconds: float, *, service: str | None = None) -> None:
        """Delay every response on the mocked clock; callers may time out before.

        Parameters
        ----------
        seconds : float
        """
        self._behavior.add("delay", f"delay({seconds:g})", seconds, service)

    def fail_init(
        self,
        error: str = "RuntimeError: init() failed as set by fail_init",
        *,
        service: str | None = None,
    ) -> None:
        """Let deployments that start after this call fail.

        Parameters
        ----------
        error : str
            The error in the service's logs.
        """
        self._behavior.add("plan", f"fail_init({error!r})", Plan(init_error=error), service)

    def never_finish(self, *, service: str | None = None) -> None:
        """Keep deployments that start after this call Transitioning until `recover`.

        Time-outs pass at once, on the mocked clock.
        """
        self._behavior.add("plan", "never_finish()", Plan(finishes=False), service)

    def expect_error(self, kind: type[Exception]) -> None:
        """Do not fail the test for errors of a class.

        Parameters
        ----------
        kind : subclass of Exception
        """
        self._behavior.expected.append(kind)

    def recover(self, *, service: str | None = None) -> None:
        """Remove the settings for services; unused settings are still reported as unused."""
        self._behavior.remove(service)

    def assert_requests(self, *expected: tuple[str, int | None]) -> None:
        """Check that the services received exactly these requests, in this order.

        Parameters
        ----------
        *expected : (str, int or None)
            The name of the service, and the status of the response, None without a response.
        """
        found = [(request.service, request.status) for request in self.requests]
        if found != [*expected]:
            raise AssertionError(f"Expected the requests {[*expected]}; there were {found}.")


class Clock:
    """The module `time`, except that `sleep` returns at once.

    Attributes
    ----------
    slept : float
        Seconds that `sleep` has added to the clock.
    """

    def __init__(self) -> None:
        self.slept = 0.0

    def __getattr__(self, name: str) -> Any:
        genuine = getattr(time, name)
        if name in ("time", "monotonic", "perf_counter"):
            return lambda: genuine() + self.slept
        return genuine

    def sleep(self, seconds: float) -> None:
        self.slept += seconds
        if self.slept > MAX_SLEEP:
            raise EndlessWait
