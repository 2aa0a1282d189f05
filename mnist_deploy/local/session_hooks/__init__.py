"""Import hooks: changes of third-party modules in the processes of ``exec`` and of runs.

A copy of the package is put on PYTHONPATH for any Python of the machine. Its modules therefore
import only the standard library; functions import other modules that are already loaded.
"""

from __future__ import annotations

import os

from . import azure_logins, azure_sdk, import_hooks, mnist_addresses, old_keywords


def install() -> None:
    """Install all hooks in this process."""
    changes = {
        **azure_logins.CHANGES,
        **azure_sdk.STAY_LOCAL,
        **mnist_addresses.CHANGES,
        **old_keywords.CHANGES,
    }
    if os.environ.get("AZUREML_RUN_ID"):
        changes |= azure_sdk.FLUSH_METRICS
    import_hooks.install(changes, azure_sdk.SUBSTITUTES, azure_sdk.MISSING)


def install_local_only() -> None:
    """Install only the hooks that keep the SDK's requests for a local workspace on this machine."""
    substitutes = {name: each for name, each in azure_sdk.SUBSTITUTES.items() if name == "imghdr"}
    import_hooks.install(azure_sdk.STAY_LOCAL, substitutes, {})
