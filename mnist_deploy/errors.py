"""The exceptions of mnist_deploy, one tree.

Every message says what was wrong, what was expected and what to do next.
"""

from __future__ import annotations


class MnistDeployError(Exception):
    """The root: ``except MnistDeployError`` catches whatever this package raises on purpose."""


class DataError(MnistDeployError):
    """MNIST files are missing, damaged or cannot be had."""


class WorkspaceError(MnistDeployError):
    """A workspace cannot be reached or started, or refuses what it is asked to do."""


class ConfigError(WorkspaceError):
    """config.json is unreadable, half-filled, or not where it was said to be."""


class ModelError(MnistDeployError):
    """A model is not registered, was changed or damaged, or needs another scikit-learn."""


class EnvironmentNotFound(MnistDeployError):
    """An environment is not registered in the workspace."""


class DeploymentError(MnistDeployError):
    """A service could not be deployed or deleted.

    Attributes
    ----------
    state : str or None
        The service's state when it was given up, None if nothing was sent.
    logs : str
        The last lines of its log, empty if there are none.
    """

    def __init__(self, message: str, *, state: str | None = None, logs: str = "") -> None:
        super().__init__(message)
        self.state, self.logs = state, logs


class DeploymentTimeout(DeploymentError):
    """A service was not healthy within the time it was given."""


class ScoringError(MnistDeployError):
    """A call to a deployed service failed: with the HTTP ``status``, None without an answer."""

    def __init__(self, message: str, *, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class InputRejected(ScoringError):
    """The service refused what it was sent (4xx)."""


class PayloadTooLarge(InputRejected):
    """The service does not take that much in one request (413)."""


class AuthenticationFailed(ScoringError):
    """No key was sent, or none that the service knows (401, 403)."""


class ScriptFailed(ScoringError):
    """``run()`` raised in the service (500)."""


class ServiceUnavailable(ScoringError):
    """Nobody answered: 502, 503, a refused or a broken connection."""


class ScoringTimeout(ScoringError):
    """No answer came within the time it was given."""
