"""The exceptions of mnist_deploy, in one tree.

Each message states what was wrong, what was expected and what to do next.
"""

from __future__ import annotations


class MnistDeployError(Exception):
    """The root: ``except MnistDeployError`` catches every error that this package defines."""


class DataError(MnistDeployError):
    """MNIST files are missing, damaged, or cannot be downloaded."""


class WorkspaceError(MnistDeployError):
    """A workspace cannot be reached or started, or rejects a request."""


class ConfigError(WorkspaceError):
    """config.json is missing, unreadable, or not filled in."""


class ModelError(MnistDeployError):
    """A model is not registered, its file differs from the registered one, or it needs another
    scikit-learn."""


class EnvironmentNotFound(MnistDeployError):
    """An environment is not registered in the workspace."""


class DeploymentError(MnistDeployError):
    """A service could not be deployed or deleted.

    Attributes
    ----------
    state : str or None
        The service's state at the failure, None if nothing was deployed.
    logs : str
        The last lines of the service's log; empty if there are none.
    """

    def __init__(self, message: str, *, state: str | None = None, logs: str = "") -> None:
        super().__init__(message)
        self.state, self.logs = state, logs


class DeploymentTimeout(DeploymentError):
    """A service was not healthy within the timeout."""


class ScoringError(MnistDeployError):
    """A call to a deployed service failed.

    Attributes
    ----------
    status : int or None
        The HTTP status; for the 424 of a managed endpoint the status of its container; None
        without a response.
    """

    def __init__(self, message: str, *, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class InputRejected(ScoringError):
    """The service rejected the request (4xx)."""


class PayloadTooLarge(InputRejected):
    """The request was larger than the service accepts (413)."""


class AuthenticationFailed(ScoringError):
    """The request had no key, or a wrong one (401, 403)."""


class ScriptFailed(ScoringError):
    """``run()`` raised in the service (500; on Kubernetes and AKS 502)."""


class ServiceUnavailable(ScoringError):
    """The service cannot be reached (404, 502, 503, a connection that is refused or breaks), or
    has too many requests (429)."""


class ScoringTimeout(ScoringError):
    """The response did not arrive in time, or the service stopped waiting for it (408, 504)."""
