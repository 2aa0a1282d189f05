"""The command ``exec``: run another command in the local workspace."""

from __future__ import annotations

import argparse

import psutil

from .. import start
from .child_process import COMMAND_NOT_EXECUTABLE, COMMAND_NOT_FOUND, run_command
from .session import open_session, report


def execute(options: argparse.Namespace) -> int:
    """Run a command in the local workspace and return its exit status."""
    address = start()
    with open_session(
        options.command, data_dir=options.data_dir, bare=options.bare, docker=options.docker
    ) as environment:
        try:
            status = run_command(options.command, environment)
        except OSError as error:
            report(f"{options.command[0]}: {error.strerror}")
            is_missing = isinstance(error, FileNotFoundError)
            status = COMMAND_NOT_FOUND if is_missing else COMMAND_NOT_EXECUTABLE
    if not psutil.pid_exists(address.pid):
        report(
            "The local workspace ended before the command did. Models and environments are kept: "
            f"run the command again. {address.folder / 'control_plane.log'} may hold the reason."
        )
    return status
