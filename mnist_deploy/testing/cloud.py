"""How the services of a mocked workspace behave, and which requests they received."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import Mock

import numpy as np
import requests

from .behavior import (
    AnswerForEachRequest,
    Behavior,
    EndlessWait,
    Plan,
    as_answer,
    as_answer_in_turn,
    raising,
    rejecting,
    shorten,
)

MAX_SLEEP = 30 * 24 * 3600.0  # seconds on the mocked clock


@dataclass(frozen=True)
class ScoringRequest:
    """One request that a mocked service received.

    Attributes
    ----------
    service : str
        Its name; ``"endpoint/deployment"`` for SDK v2.
    body : bytes
    images : ndarray of float64, shape (n, features), or None
        The rows of numbers in the body, pixels divided by 255; None if the body has none, or was
        not read.
    status : int or None
        Of the response; None if there was none.
    json : object
        The parsed body, if it is JSON.
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
    """Sets how services behave, and records which requests they received.

    A setting applies to the service named by ``service``, or to all services, later ones
    included; a later setting replaces an earlier one. For SDK v2, ``service`` is the name of an
    endpoint, or ``"endpoint/deployment"``. Without settings every deployment becomes healthy, and
    a service returns at once what the ``predict`` of its registered model returns.

    Attributes
    ----------
    requests : list of ScoringRequest
        In the order of their arrival.
    calls : list of unittest.mock.call
        The calls of SDK v1's public functions, in order, as
        ``call.Model.deploy(ws, "my-service", ...)``. Each of these functions is a mock as well:
        ``Model.deploy.assert_called_once()``. So are the methods of SDK v2's ``models``,
        ``environments``, ``online_endpoints`` and ``online_deployments``.
    errors : list of Exception
        What the functions given to `answer_with` raised, and blocked connections. The first that
        neither `expect_error` names nor the test caught is raised when the mock ends.
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

    def answer_with(self, source: Any, *, service: str | None = None) -> None:
        """Answer requests from a model, a function or a value.

        Parameters
        ----------
        source : object with predict, callable, list, int, Exception or other value
            A function replaces the script's ``run()``. For the tutorial's ``score.py`` its
            argument is the images, float64 of shape (n, features). For any other script it is the
            parsed JSON, as an array if the document, or the value of its only key ``data``, is a
            list of numbers or of rows of numbers. It returns what ``run()`` would return: a dict,
            text, list, array, table or ``AMLResponse``. An exception that it raises becomes a 500,
            and is in the service's logs and in ``errors``.
            A list holds one label for each row. An int is the status of an error response. An
            exception of `requests` ends the caller's connection; any other is raised by ``run()``
            of the scoring script. A dict or a text is the answer to every request.
        """
        self._behavior.add("answer", f"answer_with({shorten(source)})", as_answer(source), service)

    def answer_in_turn(self, *sources: Any, service: str | None = None) -> None:
        """Answer one call of the script from each source; one call too many is an error.

        A request counts only if the script is called for it: neither one without its key, nor an
        IDX file that a script of JSON cannot read, which `call_service` repeats in JSON.

        Parameters
        ----------
        *sources
            As for `answer_with`; a list holds the labels of one call.
        """
        call = f"answer_in_turn({', '.join(map(shorten, sources))})"
        answers = AnswerForEachRequest(map(as_answer_in_turn, sources), call)
        self._behavior.add("answer", call, answers, service)

    def refuse(self, status: int, message: str = "", *, service: str | None = None) -> None:
        """Answer every request with an HTTP status such as 401, 413 or 503.

        Parameters
        ----------
        status : int
        message : str
            By default the name of the status.
        """
        self._behavior.add("answer", f"refuse({status})", rejecting(status, message), service)

    def time_out(self, *, service: str | None = None) -> None:
        """Never respond; the callers' time-outs pass on the mocked clock."""
        self._behavior.add("answer", "time_out()", raising(requests.ReadTimeout()), service)

    def cut_off(self, *, service: str | None = None) -> None:
        """Accept no connection to services."""
        error = requests.ConnectionError("Connection refused.")
        self._behavior.add("answer", "cut_off()", raising(error), service)

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
        """Have deployments fail that begin from now on.

        Parameters
        ----------
        error : str
            Written to the service's logs.
        """
        self._behavior.add("plan", f"fail_init({error!r})", Plan(init_error=error), service)

    def never_finish(self, *, service: str | None = None) -> None:
        """Have deployments that begin from now on stay Transitioning until `recover`.

        Time-outs pass at once, on the mocked clock.
        """
        self._behavior.add("plan", "never_finish()", Plan(finishes=False), service)

    def expect_error(self, kind: type[Exception]) -> None:
        """Do not fail the test because of errors of this class.

        Parameters
        ----------
        kind : subclass of Exception
        """
        self._behavior.expected.append(kind)

    def recover(self, *, service: str | None = None) -> None:
        """Remove the settings for services; one that was never used still counts as unused."""
        self._behavior.remove(service)

    def assert_requests(self, *expected: tuple[str, int | None]) -> None:
        """Check that the services received these requests, in this order, and no others.

        Parameters
        ----------
        *expected : (str, int or None)
            The name of the service, and the status of the response, None if there was none.
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
