"""The command ``wipe``: stop the local workspace and delete everything that is registered."""

from __future__ import annotations

import argparse

from .. import home_folder, wipe


def wipe_workspace(options: argparse.Namespace) -> int:
    """Delete the local workspace, after a confirmation."""
    if not options.yes and not confirm():
        print("Nothing was deleted.")
        return 1
    print(f"Deleted what was registered in {wipe()}.")
    return 0


def confirm() -> bool:
    print(f"This stops the local workspace in {home_folder()} and deletes all that is registered.")
    try:
        return input("Go on? [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        print()
        return False
