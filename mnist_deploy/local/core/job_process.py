"""The process of a job: a supervisor that ends with the control plane, and its command.

``python -m mnist_deploy.local.core.job_process TAG COMMAND…`` is the supervisor. It starts the
command in a new process group and waits for its end. When the supervisor's connection to the
control plane ends, the supervisor kills the process tree of the command. Therefore a run never
outlives the control plane, not even a killed one.
"""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..host import filesystem, networking, processes, signals
from ..process_tree import PROCESS_TAG, kill_process_tree

NOT_STARTED = 127  # the exit status of shells
BY_SIGNAL = 128  # plus the signal's number
KILLED = BY_SIGNAL + 9
POLL_INTERVAL = 0.05  # seconds
KILL_TIMEOUT = 5.0  # seconds


class SupervisedProcess:
    """The control plane's handle of a job's process tree.

    Raises
    ------
    OSError
        The machine has no process, file descriptor or memory left.
    """

    def __init__(
        self, supervisor: subprocess.Popen[bytes], control: socket.socket, tag: str
    ) -> None:
        self._supervisor = supervisor
        self._control = control
        self._tag = tag
        self._is_killed = False

    def wait(self, seconds: float) -> int | None:
        try:
            status = self._supervisor.wait(seconds)
        except subprocess.TimeoutExpired:
            return None
        number = signals.signal_of(status)
        return status if number is None else -number

    def kill(self) -> None:
        if self._is_killed:
            return
        self._is_killed = True
        self._control.close()
        try:
            self._supervisor.wait(KILL_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._supervisor.kill()
            self._supervisor.wait()
        kill_process_tree(self._tag, self._supervisor.pid)
        processes.kill_group(self._supervisor)


def launch_job(
    command: Sequence[str], working_directory: Path, variables: Mapping[str, str], log: Path
) -> SupervisedProcess:
    """Start the process of a job, with its output appended to `log`."""
    tag = secrets.token_hex(8)
    control, remote = socket.socketpair()
    try:
        with remote, filesystem.open_log(log) as output:
            supervisor = processes.start_child(
                "mnist_deploy.local.core.job_process",
                [tag, *command],
                {"control": remote},
                # Modules of the job's working directory must not hide those of the supervisor.
                flags=["-P"],
                cwd=working_directory,
                env={**variables, PROCESS_TAG: tag},
                stdout=output,
                stderr=output,
            )
    except BaseException:
        control.close()
        raise
    return SupervisedProcess(supervisor, control, tag)


def supervise(control: socket.socket, tag: str, command: Sequence[str]) -> int:
    """Run `command` and return its exit status; kill the command at the end of `control`."""
    try:
        child = processes.start_command(command, stdin=subprocess.DEVNULL)
    except OSError as error:
        print(f"{command[0]}: {error.strerror}", file=sys.stderr)
        return NOT_STARTED
    while (status := child.poll()) is None:
        if networking.wait_readable([control], POLL_INTERVAL):
            processes.kill_group(child)
            kill_process_tree(tag, os.getpid())
            return KILLED
    return status if status >= 0 else BY_SIGNAL - status


if __name__ == "__main__":
    inherited = processes.take_sockets()
    sys.exit(supervise(inherited["control"], sys.argv[1], sys.argv[2:]))
