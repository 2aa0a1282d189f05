"""The command ``serve``: run the local workspace for several terminals, or in the background."""

from __future__ import annotations

import argparse
import itertools
import os
import subprocess
import sys
import time
from collections.abc import Mapping

import psutil

from .. import LocalWorkspaceError, home_folder, start
from ..host import processes, terminal
from .session import open_session, report

LISTS = ("PATH", "PYTHONPATH", "JUPYTER_PATH")
CHECK_INTERVAL = 0.5  # seconds


def serve(options: argparse.Namespace) -> int:
    """Keep the local workspace running, and print the lines that lead another terminal to it."""
    if options.background:
        return serve_in_background(options)
    address = start(port=options.port)
    if options.port and not address.url.endswith(f":{options.port}"):
        report(f"The local workspace runs already, at {address.url}.")
    with open_session(
        data_dir=options.data_dir, bare=options.bare, docker=options.docker
    ) as environment:
        print("\n".join(export_lines(environment)), end="\n\n", flush=True)
        report(
            f"Serving. Paste these lines into other {terminal.SHELL}. Ctrl-C stops the workspace."
        )
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # a caller reads to the output's end
        while psutil.pid_exists(address.pid):
            time.sleep(CHECK_INTERVAL)
    report("The local workspace was stopped.")
    return 1


def serve_in_background(options: argparse.Namespace) -> int:
    """Start this command again, out of reach of the terminal, and wait until it serves."""
    (home_folder() / "run").mkdir(mode=0o700, parents=True, exist_ok=True)
    log_file = home_folder() / "run" / "serve.log"
    arguments = ["-X", "utf8", "-m", "mnist_deploy.local", "serve", "--port", str(options.port)]
    arguments += [f"--{name}" for name in ("bare", "docker") if getattr(options, name)]
    arguments += ["--data-dir", str(options.data_dir.absolute())] if options.data_dir else []
    with open(log_file, "wb") as log:
        process = processes.start_background(
            arguments,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            encoding="utf-8",
        )
    assert process.stdout is not None
    with process.stdout as output:
        # Until the empty line, or the end of the process; children may hold the pipe open.
        lines = "".join(itertools.takewhile(str.strip, output))
    if not lines:
        process.wait()
        raise LocalWorkspaceError(log_file.read_text(errors="replace").strip())
    print(lines, end="", flush=True)
    report(
        f"Serving in the background as process {process.pid}. Paste these lines into other "
        f"{terminal.SHELL}. To end it: python -m mnist_deploy.local stop"
    )
    return 0


def export_lines(environment: Mapping[str, str]) -> list[str]:
    """The lines for a shell that change its environment to `environment`."""
    lines = [terminal.shell_unset(name) for name in os.environ if name not in environment]
    for name, value in environment.items():
        before = os.environ.get(name)
        if name in LISTS:
            first = value.removesuffix(f"{os.pathsep}{before}")
            lines.append(terminal.shell_prepend(name, first))
        elif value != before:
            lines.append(terminal.shell_set(name, value))
    return lines
