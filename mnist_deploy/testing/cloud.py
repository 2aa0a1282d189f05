"""How the services of a mocked workspace behave, and what reached them."""

from __future__ import annotations

from typing import Any, TypeVar
from unittest.mock import Mock

from .scoring import Answer, ScoringRequest, as_answer, refusing, silent, unreachable
from .services import Plan

T = TypeVar("T")


class MockedCloud:
    """Say here how services behave, and see here what reached them.

    What is said holds for the service that is named, or for all, those that are deployed
    later included; what is said last holds. At first every deployment becomes healthy, and a
    service answers what the ``predict`` of its registered model gives.

    Attributes
    ----------
    requests : list of ScoringRequest
        What was sent to the services, in order.
    calls : list of unittest.mock.call
        What was called of the SDK, in order, as ``call.Model.deploy(ws, "my-service", ...)``:
        `Model.register`, ``download``, ``delete`` and ``deploy``; `Environment.register` and
        ``get``; of services ``wait_for_deployment``, ``update``, ``delete``, ``run``,
        ``get_logs``, ``get_keys`` and ``regen_key``, whose first argument is the service. Each
        is a mock as well: ``Model.deploy.assert_called_once()``.
    """

    def __init__(self) -> None:
        self.requests: list[ScoringRequest] = []
        self.spies = Mock()
        self._answers: dict[str | None, Answer] = {}
        self._plans: dict[str | None, Plan] = {}

    @property
    def calls(self) -> list[Any]:
        return self.spies.mock_calls

    def answer_with(self, source: Any, *, service: str | None = None) -> None:
        """Let services answer from a model, a function or a list of labels.

        Parameters
        ----------
        source : object with predict, callable, or iterable of labels
            A function gets the images, float64 of shape (n, features), and returns their
            labels; where it raises, ``run()`` raises in the service: the answer is a 500. The
            labels of a list are handed out one for each image, in their order.
        service : str, optional
            The name of the only one that is meant.
        """
        _say(self._answers, service, as_answer(source))

    def refuse(self, status: int, message: str = "", *, service: str | None = None) -> None:
        """Let services answer every request with an HTTP status such as 401, 413 or 503.

        Parameters
        ----------
        status : int
        message : str
            By default the name of the status.
        service : str, optional
            The name of the only one that is meant.
        """
        _say(self._answers, service, refusing(status, message))

    def time_out(self, *, service: str | None = None) -> None:
        """Let callers wait in vain for an answer; their time-outs pass at once."""
        _say(self._answers, service, silent)

    def cut_off(self, *, service: str | None = None) -> None:
        """Let every connection to services be refused."""
        _say(self._answers, service, unreachable)

    def fail_init(
        self,
        error: str = "RuntimeError: init() was told to fail",
        *,
        service: str | None = None,
    ) -> None:
        """Let deployments that begin from now on fail, with an error in the service's logs."""
        _say(self._plans, service, Plan(init_error=error))

    def never_finish(self, *, service: str | None = None) -> None:
        """Let deployments that begin from now on stay Transitioning; time-outs pass at once."""
        _say(self._plans, service, Plan(finishes=False))

    def recover(self, *, service: str | None = None) -> None:
        """Take back all that was said above."""
        for said in (self._answers, self._plans):
            said.clear() if service is None else said.pop(service, None)

    def answer_of(self, service: str) -> Answer | None:
        """What was said of its answers; None if nothing was."""
        return self._answers.get(service, self._answers.get(None))

    def plan_for(self, service: str) -> Plan:
        """How its next deployment is to turn out."""
        return self._plans.get(service, self._plans.get(None, Plan()))


def _say(said: dict[str | None, T], service: str | None, what: T) -> None:
    if service is None:
        said.clear()
    said[service] = what
