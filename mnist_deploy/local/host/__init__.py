"""Platform-specific functions: one package for each kind of operating system, same names in each.

``posix`` implements Linux and macOS, ``windows`` Windows. Other modules of the local workspace
import the modules of this package and do not check the operating system.
"""

from __future__ import annotations

import sys

if sys.platform == "win32":
    from .windows import filesystem, networking, processes, signals, terminal
else:
    from .posix import filesystem, networking, processes, signals, terminal

__all__ = ["filesystem", "networking", "processes", "signals", "terminal"]
