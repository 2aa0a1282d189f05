"""A scoring process: ``python -m mnist_deploy.local.scoring.process OPTIONS``.

A container starts the process with its listening sockets and a control channel, which ends with
the control plane.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..host import processes
from . import aliases, no_pandas
from .control_channel import ControlChannel


@dataclass(frozen=True)
class Options:
    """The start options, which the container passes as JSON.

    Attributes
    ----------
    tag : str
        The process tag, which all child processes have in their environment.
    buckets : list of float
        The upper bounds of the histogram's buckets, in seconds.
    memory : int
        The maximum of request bodies in memory, and of unsent responses, in bytes.
    documented_limit : int or None
        The body size in bytes beyond which Azure's documentation names status 413.
    inner_secret : str
        The secret that requests of a router must carry; may be empty.
    """

    tag: str
    buckets: list[float]
    memory: int
    documented_limit: int | None = None
    inner_secret: str = ""


def run(options: Options, sockets: Mapping[str, socket.socket]) -> None:
    """Serve the script until SIGTERM or the message ``drain``.

    Parameters
    ----------
    options : Options
    sockets : mapping of str to socket
        ``control``, the control channel, and at least one listening socket: ``public`` for
        clients, ``inner`` for a router, whose requests need no key.
    """
    processes.adopt_orphans()
    control = ControlChannel(sockets["control"], options.tag)
    # As on Azure, the folder of scripts comes last: Microsoft's server appends it.
    sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != Path.cwd()]
    os.chdir(os.environ["AML_APP_ROOT"])
    sys.argv = sys.argv[:1]
    aliases.install()  # for scripts and models of 2018
    no_pandas.install()

    from azureml_inference_server_http.server import appinsights_client

    # After a failed init() it would wait 30 s; the exporter sends the rest at exit anyway.
    appinsights_client.WAIT_EXCEPTION_UPLOAD_IN_SECONDS = 0

    from .server import ScoringServer  # imports Microsoft's app, which imports the script

    server = ScoringServer(
        control,
        sockets.get("public"),
        sockets.get("inner"),
        buckets=options.buckets,
        memory=options.memory,
        documented_limit=options.documented_limit,
        inner_secret=options.inner_secret,
    )
    server.run()
    if processes.has_children():
        from ..process_tree import kill_process_tree  # imports psutil, needed only now

        kill_process_tree(options.tag, os.getpid())


if __name__ == "__main__":
    inherited = processes.take_sockets()
    run(Options(**json.loads(sys.argv[1])), inherited)
