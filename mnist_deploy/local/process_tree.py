"""The processes that belong to a scoring process, wherever they have gone."""

from __future__ import annotations

import contextlib

import psutil

PROCESS_TAG = (
    "MNIST_DEPLOY_PROCESS"  # environment variable: of one scoring process and its children
)


def kill_process_tree(mark: str, pid: int) -> None:
    """Kill all that the scoring process `pid` has started, but not itself.

    Its descendants, and whatever has `mark` in its environment: nothing else tells of a child
    in a session of its own whose parent has ended.
    """
    while family := descendants(pid) | find_tagged_processes(mark, but=pid):
        for process in family:
            with contextlib.suppress(psutil.Error):
                process.kill()
        if len(psutil.wait_procs(family, timeout=1)[1]) == len(family):
            break  # they do not end


def descendants(pid: int) -> set[psutil.Process]:
    try:
        children = psutil.Process(pid).children(recursive=True)
    except psutil.Error:
        return set()
    return {child for child in children if not is_zombie(child)}


def find_tagged_processes(mark: str, but: int) -> set[psutil.Process]:
    found = set()
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.pid != but and process.environ().get(PROCESS_TAG) == mark:
                found.add(process)
    return found


def is_zombie(process: psutil.Process) -> bool:
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.Error:
        return True
