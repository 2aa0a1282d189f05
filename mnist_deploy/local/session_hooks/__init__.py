"""What is changed in modules as they are imported, in processes of ``exec`` and of runs.

The package is copied where any Python of the machine finds it at its start, so it imports the
standard library alone; other modules it imports in functions, when they are there anyway.
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
    """Ask no address outside of this machine for a local workspace; change nothing else."""
    substitutes = {name: each for name, each in azure_sdk.SUBSTITUTES.items() if name == "imghdr"}
    import_hooks.install(azure_sdk.STAY_LOCAL, substitutes, {})
