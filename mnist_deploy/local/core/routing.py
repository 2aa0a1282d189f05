"""Chooses the deployment of an endpoint for a request: by its header, or by traffic shares."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping

DEPLOYMENT = "azureml-model-deployment"  # request and response header


def draw_by_share(shares: Mapping[str, float]) -> str:
    return random.choices(list(shares), list(shares.values()))[0]


def choose_deployment(
    shares: Mapping[str, float],
    requested: str | None,
    draw: Callable[[Mapping[str, float]], str] = draw_by_share,
) -> str:
    """The deployment that a request names, or a random one according to the traffic shares.

    Raises
    ------
    LookupError
        If there is no such deployment. The exception has the message for a response 404.
    """
    if requested is not None:
        if requested not in shares:
            names = ", ".join(shares) or "none"
            raise LookupError(f"There is no deployment {requested}. Expected one of: {names}.")
        return requested
    if not any(shares.values()):
        raise LookupError(
            "No deployment of this endpoint has traffic: assign traffic to a deployment, or send "
            f"its name in the header {DEPLOYMENT}."
        )
    return draw(shares)
