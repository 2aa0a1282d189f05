"""A process that has imported what scoring processes need, and forks into them.

``python -m mnist_deploy.local.scoring.fork_server FD``, with a socket to the control plane on which
each message asks for one fork (``core/warm.py``). It has imported third-party modules only,
none that reads the environment of a service, and has a single thread: what a fork copies is
what a start of its own would have come to.
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
from typing import Any, NoReturn

import numpy

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
FAREWELL = 3.0  # seconds for scoring processes to end by themselves after the control plane
PR_SET_PDEATHSIG, PR_SET_NAME = 1, 15  # of Linux's prctl


def main() -> None:
    control = socket.socket(fileno=int(sys.argv[1]))
    del sys.path[0]  # the working directory
    no_pandas.install()
    for name in IMPORTED:
        with contextlib.suppress(ImportError):  # a script that needs it will say so
            importlib.import_module(name)
    if len(os.listdir("/proc/self/task")) > 1:
        print("No warm process: a module has started a thread.", file=sys.stderr)
        os._exit(CANNOT_FORK)  # at once: who waits for a fork would kill what has no status yet
    gc.collect()
    gc.freeze()  # a collection would write to, and so copy, much of what is shared
    serve(control)


def serve(control: socket.socket) -> None:
    """Fork whenever that is asked for, and tell the status of each child that has ended."""
    children: dict[int, tuple[int, int]] = {}  # by pidfd: its pid, and where its status is told
    poller = select.poll()
    poller.register(control, select.POLLIN)
    while True:
        for fd, _ in poller.poll():
            if fd in children:
                pid, told = children.pop(fd)
                poller.unregister(fd)
                status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
                with contextlib.suppress(BrokenPipeError):
                    os.write(told, str(status).encode())
                os.close(told)
                os.close(fd)
                continue
            message, fds, *_ = socket.recv_fds(control, 1 << 20, 8)
            if not message:
                return await_end()
            told, *others = fds
            parent, pid = os.getpid(), os.fork()
            if pid == 0:
                for inherited in (
                    control.detach(),
                    told,
                    *children,
                    *(t for _, t in children.values()),
                ):
                    os.close(inherited)
                become(json.loads(message), others, parent)
            child = os.pidfd_open(pid)
            children[child] = pid, told
            poller.register(child, select.POLLIN)
            for passed in others:
                os.close(passed)
            socket.send_fds(control, [str(pid).encode()], [child])


def become(message: dict[str, Any], fds: list[int], parent: int) -> NoReturn:
    """Be the scoring process that is asked for, as if started on its own."""
    os.setsid()
    libc = ctypes.CDLL(None)
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before
        os._exit(1)
    libc.prctl(PR_SET_NAME, b"scoring")
    given = dict(zip(message["fds"], fds, strict=True))
    line, log = given.pop("line"), given.pop("log")
    for fd, standard in ((line, 0), (log, 1), (log, 2)):
        os.dup2(fd, standard)
    os.close(line)
    os.close(log)
    os.environ.clear()
    os.environ.update(message["environment"])
    os.chdir(message["folder"])
    time.tzset()
    numpy.random.seed()  # not the same for all
    run(Options(**message["options"], **given))
    sys.exit()


def await_end() -> None:
    """Let the children end by themselves; those that do not are killed as we end."""
    give_up_at = time.monotonic() + FAREWELL
    with contextlib.suppress(ChildProcessError):  # none is left
        while time.monotonic() < give_up_at:
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                time.sleep(0.02)


if __name__ == "__main__":
    main()
