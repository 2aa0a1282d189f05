"""A scoring process: ``python -m mnist_deploy.local.scoring.process OPTIONS``.

Started by its container with the sockets it listens on, a pipe for access policies and probes
that closes when the control plane has ended (standard input), and a pipe for reports.
"""

from __future__ import annotations

import ctypes
import json
import os
import socket
import sys
from dataclasses import dataclass
from pathlib import Path

from . import aliases, no_pandas
from .control_channel import ControlChannel

PR_SET_CHILD_SUBREAPER = 36  # of Linux's prctl


@dataclass(frozen=True)
class Options:
    """What the container passes at the start, as JSON.

    Attributes
    ----------
    report : int
        File descriptor of the pipe to the container.
    tag : str
        The process tag: every process that this one starts has it in its environment.
    buckets : list of float
        Upper bounds of the durations that are counted together, in seconds.
    memory : int
        Bytes that bodies may take, and answers that are not taken.
    documented_limit : int or None
        Bytes of a body beyond which Azure's documentation names 413.
    public, inner : int
        File descriptors of listening sockets: TCP, and a UNIX socket on which no key is required.
    """

    report: int
    tag: str
    buckets: list[float]
    memory: int
    documented_limit: int | None = None
    public: int | None = None
    inner: int | None = None


def become_subreaper() -> None:
    """Keep orphaned descendants as children of this process: its container finds and kills them."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)


def run(options: Options) -> None:
    become_subreaper()
    control = ControlChannel(options.report, options.tag)
    # As on Azure, the folder of scripts comes last: Microsoft's server appends it.
    sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != Path.cwd()]
    os.chdir(os.environ["AML_APP_ROOT"])
    sys.argv = sys.argv[:1]
    aliases.install()  # for scripts and models of 2018
    no_pandas.install()

    from azureml_inference_server_http.server import appinsights_client

    # Where init() fails it would wait 30 s; the exporter sends the rest at the end anyway.
    appinsights_client.WAIT_EXCEPTION_UPLOAD_IN_SECONDS = 0

    from .server import ScoringServer  # imports Microsoft's app, which imports the script

    public, inner = (
        None if fd is None else socket.socket(fileno=fd) for fd in (options.public, options.inner)
    )
    server = ScoringServer(
        control,
        public,
        inner,
        buckets=options.buckets,
        memory=options.memory,
        documented_limit=options.documented_limit,
    )
    server.run()
    if has_children():
        from ..process_tree import kill_process_tree  # imports psutil, needed only now

        kill_process_tree(options.tag, os.getpid())


def has_children() -> bool:
    """Whether this process has children, or might have some."""
    try:
        threads = list(Path("/proc/self/task").iterdir())
        return any((thread / "children").read_text() for thread in threads)
    except OSError:
        return True


if __name__ == "__main__":
    run(Options(**json.loads(sys.argv[1])))
