"""Terminals of Windows: PowerShell."""

from __future__ import annotations

SHELL = "PowerShell terminals"


def is_in_foreground() -> bool:
    return True


def has_display() -> bool:
    return True


def shell_unset(name: str) -> str:
    return f"Remove-Item Env:{name} -ErrorAction Ignore"


def shell_set(name: str, value: str) -> str:
    return f"$env:{name} = {quote(value)}"


def shell_prepend(name: str, value: str) -> str:
    return f"$env:{name} = {quote(value)} + $(if ($env:{name}) {{ ';' + $env:{name} }})"


def quote(value: str) -> str:
    """Quote a string for PowerShell without expansion."""
    return "'" + value.replace("'", "''") + "'"
