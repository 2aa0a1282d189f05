"""Platform-specific functions: one module for each kind of operating system, same names in each.

``posix`` implements Linux and macOS, ``windows`` Windows. Other modules of the local workspace
import this package and do not check the operating system.
"""

from __future__ import annotations

import sys

if sys.platform == "win32":
    from . import windows as system
else:
    from . import posix as system

__all__ = ["system"]
