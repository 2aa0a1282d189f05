"""The process tree of a scoring process: find, measure and kill its processes.

A scoring process is the child subreaper of its descendants (on Linux), so that a daemon that was
started by a double fork remains a descendant until the scoring process ends. Other processes are
found by their process tag, an environment variable. Not found is a daemon that has cleared its
environment, if its scoring process was killed by anything but its container.
"""

from __future__ import annotations

import contextlib
from mmap import PAGESIZE
from pathlib import Path

import psutil

from .host import processes

PROCESS_TAG = "MNIST_DEPLOY_PROCESS"  # environment variable: of a scoring process and its children


def kill_process_tree(tag: str, pid: int) -> None:
    """Kill the descendants of the scoring process `pid`, and other processes with its tag."""
    while found := descendants(pid) | find_tagged_processes(tag, but=pid):
        for process in found:
            with contextlib.suppress(psutil.Error):
                process.kill()
        if len(psutil.wait_procs(found, timeout=1)[1]) == len(found):
            break  # none of the processes can be killed


def descendants(pid: int) -> set[psutil.Process]:
    try:
        children = psutil.Process(pid).children(recursive=True)
    except psutil.Error:
        return set()
    return {child for child in children if not is_zombie(child)}


def find_tagged_processes(tag: str, but: int) -> set[psutil.Process]:
    """Find processes that may have left their group, which `processes.kill_group` kills."""
    found: set[psutil.Process] = set()
    if processes.GROUP_HAS_ALL_DESCENDANTS:
        return found
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.pid != but and process.environ().get(PROCESS_TAG) == tag:
                found.add(process)
    return found


def is_zombie(process: psutil.Process) -> bool:
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.Error:
        return True


def resident_memory(pid: int) -> int:
    """Bytes of resident memory of a process and its descendants; 0 if it has ended."""
    if not Path("/proc/self/statm").exists():
        with contextlib.suppress(psutil.Error):
            return sum(map(_resident_memory, [psutil.Process(pid), *descendants(pid)]))
        return 0
    total, todo = 0, [pid]
    while todo:
        pid = todo.pop()
        with contextlib.suppress(OSError):  # the process has just ended
            pages = Path(f"/proc/{pid}/statm").read_text().split()[1]
            total += int(pages) * PAGESIZE
            for thread in Path(f"/proc/{pid}/task").iterdir():
                todo += map(int, (thread / "children").read_text().split())
    return total


def _resident_memory(process: psutil.Process) -> int:
    try:
        return process.memory_info().rss
    except psutil.Error:
        return 0


def cpu_seconds(pid: int) -> float:
    """CPU time of a process and its descendants; 0 if it has ended."""
    total = 0.0
    with contextlib.suppress(psutil.Error):
        for process in [psutil.Process(pid), *descendants(pid)]:
            with contextlib.suppress(psutil.Error):
                times = process.cpu_times()
                total += times.user + times.system
    return total


def peak_memory(pid: int) -> int:
    """The sum of the peaks of resident memory of a process and its descendants, in bytes.

    Linux records the peak; on other systems the present size is returned.
    """
    total = 0
    with contextlib.suppress(psutil.Error):
        for process in [psutil.Process(pid), *descendants(pid)]:
            total += _recorded_peak(process.pid) or _resident_memory(process)
    return total


def _recorded_peak(pid: int) -> int:
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return 0
