"""The process of a job: a supervisor that ends with the control plane, and its command.

``python -m mnist_deploy.local.core.job_process TAG COMMAND…`` is the supervisor. It starts the
command in a process group of its own and waits for it. Its standard input is a pipe from the
control plane: at the end of that file the supervisor kills the command and all that the command
has started, so a run cannot outlive the control plane, however that ends.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import select
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..process_tree import PROCESS_TAG, kill_process_tree

NOT_STARTED = 127  # exit status, as shells have it
BY_SIGNAL = 128  # and the signal's number
POLL_INTERVAL = 0.05  # seconds
KILL_TIMEOUT = 5.0  # seconds


class SupervisedProcess:
    """A job's process tree, seen from the control plane.

    Raises
    ------
    OSError
        The machine has no process, file descriptor or memory left.
    """

    def __init__(self, supervisor: subprocess.Popen[bytes], control: int, tag: str) -> None:
        self._supervisor = supervisor
        self._control = control
        self._tag = tag
        self._is_killed = False

    def wait(self, seconds: float) -> int | None:
        try:
            status = self._supervisor.wait(seconds)
        except subprocess.TimeoutExpired:
            return None
        is_signal = BY_SIGNAL < status <= BY_SIGNAL + signal.SIGRTMAX
        return BY_SIGNAL - status if is_signal else status

    def kill(self) -> None:
        if self._is_killed:
            return
        self._is_killed = True
        os.close(self._control)
        try:
            self._supervisor.wait(KILL_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._supervisor.kill()
            self._supervisor.wait()
        kill_process_tree(self._tag, self._supervisor.pid)


def launch_job(
    command: Sequence[str], working_directory: Path, variables: Mapping[str, str], log: Path
) -> SupervisedProcess:
    """Start the process of a job; what it prints is appended to `log`."""
    tag = secrets.token_hex(8)
    if command[0] == "python":
        command = [sys.executable, *command[1:]]
    inherited, control = os.pipe()
    try:
        with open(log, "ab") as output:
            supervisor = subprocess.Popen(
                # -P: modules of the job's working directory must not hide those of the supervisor.
                [sys.executable, "-P", "-m", "mnist_deploy.local.core.job_process", tag, *command],
                cwd=working_directory,
                env={**variables, PROCESS_TAG: tag},
                stdin=inherited,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
    except BaseException:
        os.close(control)
        raise
    finally:
        os.close(inherited)
    return SupervisedProcess(supervisor, control, tag)


def supervise(tag: str, command: Sequence[str]) -> int:
    """Run `command` and return its exit status; kill it when standard input ends."""
    try:
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
    except OSError as error:
        print(f"{command[0]}: {error.strerror}", file=sys.stderr)
        return NOT_STARTED
    while (status := child.poll()) is None:
        if select.select([0], [], [], POLL_INTERVAL)[0]:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            kill_process_tree(tag, os.getpid())
            return BY_SIGNAL + signal.SIGKILL
    return status if status >= 0 else BY_SIGNAL - status


if __name__ == "__main__":
    sys.exit(supervise(sys.argv[1], sys.argv[2:]))
