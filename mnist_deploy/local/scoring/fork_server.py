"""A process with the imported modules of scoring processes, which are its forks.

``python -m mnist_deploy.local.scoring.fork_server`` gets a stream socket to the control plane
(``core/launch.py``). The fork server sends a byte when it is ready. A request is eight bytes of
size, which carry file descriptors, and a message in JSON; the response is eight bytes of process
id, which carry a pidfd. The fork server has a single thread and imports only third-party modules
that do not read the environment of a service, so a fork starts in the state of a new process.

Forks do not depend on the fork server: they keep running when a killed fork server is replaced.
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

from ..host import processes
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
STOP_TIMEOUT = 3.0  # seconds: grace period of the forks after the control plane has ended
PR_SET_NAME = 15  # of Linux's prctl


@dataclass
class Child:
    pid: int
    report: int  # a pipe to the control plane, for the exit status


def main() -> None:
    control = processes.take_sockets()["control"]
    del sys.path[0]  # the working directory
    no_pandas.install()
    for name in IMPORTED:
        with contextlib.suppress(ImportError):  # a script that imports it fails with a message
            importlib.import_module(name)
    if len(os.listdir("/proc/self/task")) > 1:
        print("The fork server cannot fork: a module has started a thread.", file=sys.stderr)
        os._exit(CANNOT_FORK)  # immediately: a caller that awaits a fork would kill the fork server
    gc.collect()
    gc.freeze()  # a collection would write to shared memory, and so copy it
    control.sendall(b"+")
    serve(control)


def serve(control: socket.socket) -> None:
    """Fork on request and report the exit status of forks, until `control` is closed."""
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
            with contextlib.suppress(OSError):  # the next iteration detects the end
                socket.send_fds(control, [pid.to_bytes(8, "big")], [handle])


def receive(control: socket.socket) -> tuple[dict[str, Any], int, list[int]] | None:
    """Receive a request: message, status pipe and descriptors; None at the end of `control`."""
    try:
        size, fds, *_ = socket.recv_fds(control, 8, 8)
    except ConnectionResetError:  # the other process ended without reading each message
        return None
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
    """Turn a fork into the requested scoring process."""
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
    numpy.random.seed()  # another seed in each fork
    run(Options(**message["options"]), processes.open_sockets(sockets))
    sys.exit()


def stop(children: dict[int, Child]) -> None:
    """Wait until the children end with their control channels; kill the remaining ones."""
    deadline = time.monotonic() + STOP_TIMEOUT
    while children and time.monotonic() < deadline:
        ended = [fd for fd in children if select.select([fd], [], [], 0.02)[0]]
        for fd in ended:
            report_status(fd, children.pop(fd))
    for fd in children:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(fd, signal.SIGKILL)


if __name__ == "__main__":
    main()
