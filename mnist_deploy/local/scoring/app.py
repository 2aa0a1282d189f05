"""What runs in a container's process: Microsoft's inference server behind a key check.

Started as ``python -m mnist_deploy.local.scoring.app`` with the listening socket, the
read end of a pipe that closes when the control plane is gone, and the write end of one
that tells it when the script's ``init()`` has returned.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

from gunicorn.app.base import BaseApplication

from . import aliases
from .middleware import KeyCheck, Turnstile, WholeBody, WsgiApp

WORKER_LIMIT = 300  # seconds: how long Microsoft's server leaves a worker alone


class ScoringServer(BaseApplication):
    """gunicorn on a socket that the control plane opened, with workers as the cores allow."""

    def __init__(self, *, socket_fd: int, ready_fd: int, workers: int, keys_file: Path) -> None:
        self._options = {
            "bind": f"fd://{socket_fd}",
            "workers": workers,
            "worker_class": "gthread",
            "threads": 32,  # a connection on which nothing comes holds one for seconds
            "keepalive": 60,
            "timeout": WORKER_LIMIT,
            "graceful_timeout": 5,
            "post_fork": lambda arbiter, worker: exit_with_control_plane(),
            "post_worker_init": self._note_ready,
            "child_exit": self._give_up_if_never_ready,
            "control_socket_disable": True,
        }
        self._ready_fd = ready_fd
        self._keys_file = keys_file
        self._ready = mmap.mmap(-1, 256)  # shared with the workers: a byte for each
        super().__init__()

    def load_config(self) -> None:
        for name, value in self._options.items():
            if name in self.cfg.settings:
                self.cfg.set(name, value)

    def load(self) -> WsgiApp:
        aliases.install()  # for scripts and models of 2018
        from azureml_inference_server_http.server.config import config
        from azureml_inference_server_http.server.entry import app

        turnstile = Turnstile(app, min(config.scoring_timeout / 1000, WORKER_LIMIT))
        turnstile.watch()
        return WholeBody(KeyCheck(turnstile, self._keys_file))

    def _note_ready(self, worker: Any) -> None:
        self._ready[worker.age % len(self._ready)] = 1
        with contextlib.suppress(BrokenPipeError):  # a later worker's: nobody waits for it
            os.write(self._ready_fd, b"ready\n")

    def _give_up_if_never_ready(self, arbiter: Any, worker: Any) -> None:
        """gunicorn would start a worker anew for ever, if it died without an exception."""
        if not self._ready[worker.age % len(self._ready)]:
            print("The worker ended before init() had returned.", flush=True)
            os._exit(1)
        self._ready[worker.age % len(self._ready)] = 0


def exit_with_control_plane() -> None:
    """End when standard input is closed at its other end, and with us all that we started.

    However busy the script may be: a thread waits, and no signal can be held back.
    """

    def wait() -> None:
        while os.read(0, 1):
            pass
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=wait, daemon=True, name="lifeline").start()


def main() -> None:
    socket_fd, ready_fd, workers, keys_file = sys.argv[1:]
    exit_with_control_plane()
    # As on Azure, the folder of scripts comes last: Microsoft's server appends it.
    sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != Path.cwd()]
    os.chdir(os.environ["AML_APP_ROOT"])
    sys.argv = sys.argv[:1]
    ScoringServer(
        socket_fd=int(socket_fd),
        ready_fd=int(ready_fd),
        workers=int(workers),
        keys_file=Path(keys_file),
    ).run()


if __name__ == "__main__":
    main()
