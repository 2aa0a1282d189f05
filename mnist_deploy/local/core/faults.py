"""Errors of the workspace. Each REST API maps them to the error schema of its client."""

from __future__ import annotations

from collections.abc import Iterable


class Fault(Exception):
    """Base class: the reason why a request is rejected or an operation fails.

    Attributes
    ----------
    kind : str
        The kind of the resource: ``model``, ``environment``, ``deployment``, ``path``, …
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class NotFound(Fault):
    """The resource, or this version of it, does not exist."""

    def __init__(self, kind: str, name: str, hint: str = "") -> None:
        super().__init__(kind, f"There is no {kind} {name} in this local workspace. {hint}".strip())


class Conflict(Fault):
    """The resource exists already, or its state does not allow the request."""


class InUse(Fault):
    """A record cannot be deleted while another record refers to it."""

    def __init__(self, kind: str, name: str, users: Iterable[str]) -> None:
        super().__init__(kind, f"{name} is in use: first delete {', '.join(users)}.")


class Invalid(Fault):
    """A value in the request is not valid."""


class Denied(Fault):
    """The request lacks valid credentials."""


class Full(Fault):
    """The disk is full."""

    def __init__(self) -> None:
        super().__init__(
            "storage",
            "The disk of the local workspace is full: nothing was registered. Free some space, or "
            "move the workspace with MNIST_DEPLOY_HOME.",
        )


class NotSupported(Fault):
    """The local workspace does not support a feature of Azure."""

    def __init__(self, feature: str) -> None:
        super().__init__(
            "call",
            f"The local workspace of mnist_deploy does not support {feature}. Its README lists the "
            "supported calls; with a config.json of your own the same call is sent to Azure.",
        )


class Failed(Fault):
    """An accepted operation failed; the error of an `Operation`."""
