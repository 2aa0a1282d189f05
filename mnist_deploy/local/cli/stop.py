"""The command ``stop``: stop the local workspace, whatever processes use it."""

from __future__ import annotations

import argparse

from .. import home_folder, stop


def stop_workspace(options: argparse.Namespace) -> int:
    """Stop the control plane and all services; models and environments are kept."""
    if stop():
        print(f"Stopped the local workspace in {home_folder()}. What is registered is kept.")
    else:
        print(f"No local workspace runs in {home_folder()}.")
    return 0
