"""A scoring process: ``python -m mnist_deploy.local.scoring.process OPTIONS``.

Started by the container with the sockets it listens on, a pipe that tells it who is let in and
closes when the control plane is gone (standard input), and one on which it reports.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from dataclasses import dataclass
from pathlib import Path

from . import aliases, no_pandas
from .control_channel import ControlChannel


@dataclass(frozen=True)
class Options:
    """What the container says at the start, as JSON.

    Attributes
    ----------
    report : int
        File descriptor of the pipe to the container.
    mark : str
        What all that this process starts has in its environment.
    buckets : list of float
        Upper bounds of the durations that are counted together, in seconds.
    memory : int
        Bytes that bodies may take, and answers that are not taken.
    documented_limit : int or None
        Bytes of a body beyond which Azure's documentation names 413.
    public, inner : int
        File descriptors of listening sockets: TCP, and a UNIX socket on which no key is asked
        for.
    """

    report: int
    mark: str
    buckets: list[float]
    memory: int
    documented_limit: int | None = None
    public: int | None = None
    inner: int | None = None


def run(options: Options) -> None:
    control = ControlChannel(options.report, options.mark)
    # As on Azure, the folder of scripts comes last: Microsoft's server appends it.
    sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != Path.cwd()]
    os.chdir(os.environ["AML_APP_ROOT"])
    sys.argv = sys.argv[:1]
    aliases.install()  # for scripts and models of 2018
    no_pandas.install()

    from azureml_inference_server_http.server import appinsights_client

    # Where init() fails it would wait 30 s; what is left to be told is told at the end anyway.
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


if __name__ == "__main__":
    run(Options(**json.loads(sys.argv[1])))
