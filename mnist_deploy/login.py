"""How to log in to Azure without ever waiting for somebody who is not there."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from .errors import WorkspaceError
from .sdk_call import reason

if TYPE_CHECKING:
    from azureml.core.authentication import AbstractAuthentication

_SERVICE_PRINCIPAL = ("AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET")


def choose_authentication() -> AbstractAuthentication:
    """Choose how to log in: service principal, then Azure CLI, then a person.

    The service principal is named by AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET.
    The SDK knows Azure CLI where the package azure-cli is installed in this Python.

    Raises
    ------
    WorkspaceError
        The first is half set, or neither of the first two is there and nobody to ask: see
        `somebody_is_there`. Or that person did not manage to log in.
    """
    from azureml.core import authentication

    values = [os.environ.get(name) for name in _SERVICE_PRINCIPAL]
    if all(values):
        return authentication.ServicePrincipalAuthentication(*values)
    if any(values):
        missing = [name for name in _SERVICE_PRINCIPAL if not os.environ.get(name)]
        raise WorkspaceError(
            f"A service principal needs {', '.join(_SERVICE_PRINCIPAL)}; {' and '.join(missing)} "
            "is not set. Set all of them, or none to log in otherwise."
        )
    try:
        azure_cli = authentication.AzureCliAuthentication()
        azure_cli.get_authentication_header()
        return azure_cli
    except Exception as error:  # not installed, not logged in, expired: each has its own error
        why_not = reason(error)
    if not somebody_is_there():
        raise WorkspaceError(
            f"Nobody is here to log in to Azure. Set {', '.join(_SERVICE_PRINCIPAL)} of a service "
            "principal, or run 'pip install azure-cli' in this Python and then 'az login'. "
            f"(Azure CLI: {why_not})"
        )
    try:
        return authentication.InteractiveLoginAuthentication()
    except Exception as error:
        raise WorkspaceError(f"Logging in to Azure failed: {reason(error)} Try again.") from error


def somebody_is_there() -> bool:
    """Whether a person can be asked: in a terminal, or a notebook that takes input.

    Not in CI, nor where MNIST_DEPLOY_UNATTENDED is set, nor in a notebook that a program runs.
    """
    if os.environ.get("CI") or os.environ.get("MNIST_DEPLOY_UNATTENDED"):
        return False
    if "ipykernel" in sys.modules:
        from IPython import get_ipython

        kernel = getattr(get_ipython(), "kernel", None)
        if kernel is not None:
            # What the frontend said about itself with the cell that is running.
            return bool(kernel.get_parent("shell").get("content", {}).get("allow_stdin"))
    return sys.stdin is not None and sys.stdin.isatty()
