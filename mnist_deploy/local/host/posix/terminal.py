"""Terminals of POSIX systems: the foreground, the display, lines for the shell."""

from __future__ import annotations

import os
import shlex
import sys

SHELL = "terminals"  # where the lines of the functions `shell_…` can be pasted


def is_in_foreground() -> bool:
    """Whether the terminal's Ctrl-C interrupts this process."""
    try:
        with open("/dev/tty") as terminal:
            return os.tcgetpgrp(terminal.fileno()) == os.getpgrp()
    except OSError:
        return False


def has_display() -> bool:
    """Whether a graphical browser can be opened; a text browser would hide the output."""
    return sys.platform == "darwin" or any(map(os.environ.get, ("DISPLAY", "WAYLAND_DISPLAY")))


def shell_unset(name: str) -> str:
    """Return the shell command that removes an environment variable."""
    return f"unset {name}"


def shell_set(name: str, value: str) -> str:
    """Return the shell command that sets an environment variable."""
    return f"export {name}={shlex.quote(value)}"


def shell_prepend(name: str, value: str) -> str:
    """Return the shell command that prepends a path to an environment variable."""
    return f'export {name}={shlex.quote(value)}"${{{name}:+:${name}}}"'
