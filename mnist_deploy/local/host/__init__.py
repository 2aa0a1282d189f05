"""What the operating systems do differently: one module for each, with the same names.

``posix`` is Linux and macOS. The rest of the local workspace imports from here only, and checks
for no operating system itself.
"""

from __future__ import annotations

import sys

if sys.platform == "win32":
    from . import windows as system
else:
    from . import posix as system

__all__ = ["system"]
