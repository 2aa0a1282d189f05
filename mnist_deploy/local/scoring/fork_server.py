"""A process that has imported what scoring processes need, and forks into them.

``python -m mnist_deploy.local.scoring.fork_server`` gets a stream socket to the control plane
(``core/launch.py``). It sends a byte when it is ready; each request is eight bytes of size, which
carry file descriptors, and a message in JSON; the answer is eight bytes of process id, which
carry a pidfd. It has imported third-party modules only, none that reads the environment of a
service, and has a single thread: a fork is in the state of a process that has just started.

Its forks do not depend on it: one that is killed is replaced, and its forks go on.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import json
import os
import select
import signal
import socket
import sys
import time
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy

from ..host import system
from . import no_pandas
from .process import Options, run

IMPORTED = (
    "asyncio",
    "azure.monitor.opentelemetry.exporter",
    "flask",
    "flask_cors",
    "httptools",
    "inference_schema.schema_util",
    "joblib",
    "msgspec",
    "opentelemetry.sdk._logs.export",
    "opentelemetry.sdk.trace.export",
    "pydantic_settings",
    "scipy.stats",
    "sklearn.linear_model",
)
CANNOT_FORK = 3  # exit status
STOP_TIMEOUT = 3.0  # seconds for scoring processes to end by themselves after the control plane
PR_SET_NAME = 15  # of Linux's prctl


@dataclass
class Child:
    pid: int
    report: int  # a pipe to the control plane, for its exit status


def main() -> None:
    control = system.take_sockets()["control"]
    del sys.path[0]  # the working directory
    no_pandas.install()
    for name in IMPORTED:
        with contextlib.suppress(ImportError):  # a script that needs it fails with a message
            importlib.import_module(name)
    if len(os.listdir("/proc/self/task")) > 1:
        print("The fork server cannot fork: a module has started a thread.", file=sys.stderr)
        os._exit(CANNOT_FORK)  # at once: a caller that awaits a fork would kill it
    gc.collect()
    gc.freeze()  # a collection would write to, and so copy, much of what is shared
    control.sendall(b"+")
    serve(control)


def serve(control: socket.socket) -> None:
    """Fork on request, report the status of each fork that has ended, and end with `control`."""
    children: dict[int, Child] = {}  # by pidfd
    poller = select.poll()
    poller.register(control, select.POLLIN)
    while True:
        for fd, _ in poller.poll():
            if fd in children:
                poller.unregister(fd)
                report_status(fd, children.pop(fd))
                continue
            request = receive(control)
            if request is None:
                stop(children)
                return
            message, report, fds = request
            pid = os.fork()
            if pid == 0:
                for inherited in (control.detach(), report, *children):
                    os.close(inherited)
                for child in children.values():
                    os.close(child.report)
                become(message, fds)
            handle = os.pidfd_open(pid)
            children[handle] = Child(pid, report)
            poller.register(handle, select.POLLIN)
            for passed in fds:
                os.close(passed)
            with contextlib.suppress(OSError):  # the next turn sees that the control plane ended
                socket.send_fds(control, [pid.to_bytes(8, "big")], [handle])


def receive(control: socket.socket) -> tuple[dict[str, Any], int, list[int]] | None:
    """A request: its message, the pipe for its status, its descriptors. None: there is no more."""
    size, fds, *_ = socket.recv_fds(control, 8, 8)
    data = b""
    while size and len(data) < int.from_bytes(size, "big"):
        part = control.recv(1 << 20)
        if not part:
            return None
        data += part
    if not size:
        return None
    return json.loads(data), fds[0], fds[1:]


def report_status(handle: int, child: Child) -> None:
    status = os.waitstatus_to_exitcode(os.waitpid(child.pid, 0)[1])
    with contextlib.suppress(BrokenPipeError):
        os.write(child.report, str(status).encode())
    os.close(child.report)
    os.close(handle)


def become(message: dict[str, Any], fds: list[int]) -> NoReturn:
    """Be the scoring process that is requested, as if started on its own."""
    os.setsid()
    ctypes.CDLL(None).prctl(PR_SET_NAME, b"scoring")
    log, *passed = fds
    for standard in (1, 2):
        os.dup2(log, standard)
    os.close(log)
    os.environ.clear()
    os.environ.update(message["environment"])
    os.chdir(message["folder"])
    time.tzset()
    sockets = dict(zip(message["sockets"], passed, strict=True))
    numpy.random.seed()  # not the same for all
    run(Options(**message["options"]), system.open_sockets(sockets))
    sys.exit()


def stop(children: dict[int, Child]) -> None:
    """Let the children end by themselves, as their control channels have; kill the others."""
    give_up_at = time.monotonic() + STOP_TIMEOUT
    while children and time.monotonic() < give_up_at:
        ended = [fd for fd in children if select.select([fd], [], [], 0.02)[0]]
        for fd in ended:
            report_status(fd, children.pop(fd))
    for fd in children:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(fd, signal.SIGKILL)


if __name__ == "__main__":
    main()
