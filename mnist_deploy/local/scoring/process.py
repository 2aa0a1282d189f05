"""A scoring process: ``python -m mnist_deploy.local.scoring.process OPTIONS``.

Started by its container with the sockets it listens on, and a control channel, which ends with the
control plane.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..host import system
from . import aliases, no_pandas
from .control_channel import ControlChannel


@dataclass(frozen=True)
class Options:
    """What the container passes at the start, as JSON.

    Attributes
    ----------
    tag : str
        The process tag: every process that this one starts has it in its environment.
    buckets : list of float
        Upper bounds of the durations that are counted together, in seconds.
    memory : int
        Bytes that bodies may take, and answers that are not taken.
    documented_limit : int or None
        Bytes of a body beyond which Azure's documentation names 413.
    inner_secret : str
        What the requests of a router have to carry; may be empty.
    """

    tag: str
    buckets: list[float]
    memory: int
    documented_limit: int | None = None
    inner_secret: str = ""


def run(options: Options, sockets: Mapping[str, socket.socket]) -> None:
    """Serve the script until the process is to end.

    Parameters
    ----------
    options : Options
    sockets : mapping of str to socket
        ``control``, the control channel; and one or both of ``public`` and ``inner``, where it
        listens: for clients, and for a router, of which no key is required.
    """
    system.adopt_orphans()
    control = ControlChannel(sockets["control"], options.tag)
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
    if system.has_children():
        from ..process_tree import kill_process_tree  # imports psutil, needed only now

        kill_process_tree(options.tag, os.getpid())


if __name__ == "__main__":
    inherited = system.take_sockets()
    run(Options(**json.loads(sys.argv[1])), inherited)
