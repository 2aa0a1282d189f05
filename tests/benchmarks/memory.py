"""Peak resident memory of processes, as the Linux kernel reports it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path


def peak_memory(pids: Iterable[int | str] = ("self",)) -> float | None:
    """Sum of the largest resident sets of processes since their start, in MB; None off Linux.

    Pages that processes share are counted for each of them.
    """
    if not Path("/proc/self/status").exists():
        return None
    total = 0
    for pid in pids:
        try:
            status = Path(f"/proc/{pid}/status").read_text()
        except OSError:  # the process has ended
            continue
        found = re.search(r"VmHWM:\s+(\d+) kB", status)
        total += int(found[1]) if found else 0
    return total / 1024
