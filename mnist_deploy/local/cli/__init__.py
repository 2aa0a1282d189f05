"""The command line ``python -m mnist_deploy.local``: one module for each command."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from importlib.metadata import version
from pathlib import Path
from types import FrameType

from .. import LocalWorkspaceError
from ..host import signals
from .child_process import SIGNAL_STATUS
from .exec import execute
from .portal import open_portal
from .serve import serve
from .session import report
from .show import show
from .stop import stop_workspace
from .wipe import wipe_workspace

EXEC = """\
Start or join the local workspace and run COMMAND in it, for instance

  python -m mnist_deploy.local exec -- jupyter lab
  python -m mnist_deploy.local exec -- jupyter execute their-notebook.ipynb

A bare Workspace.from_config() returns the local workspace: where the current folder has no
config.json, it gets a temporary one. The model and the environment that the tutorial's notebooks
expect are registered, unless --bare is given. Jupyter kernels and Python modules that old notebooks
name are mapped to those of today. Without a network, the data comes from DIR, or from a sample.
"""
SERVE = """\
Run the local workspace until Ctrl-C, and print the lines that lead another terminal to it. With
--background it runs until "python -m mnist_deploy.local stop", so that deployed services outlive
the script that deployed them.
"""


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m mnist_deploy.local", description=__doc__)
    parser.add_argument(
        "--version", action="version", version=f"mnist_deploy {version('mnist-deploy')}"
    )
    commands = parser.add_subparsers(dest="verb", required=True)
    run = commands.add_parser(
        "exec",
        help="run a command in the local workspace",
        usage="%(prog)s [--bare] [--docker] [--data-dir DIR] -- COMMAND ...",
        description=EXEC,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    server = commands.add_parser(
        "serve", help="run the local workspace for several terminals", description=SERVE
    )
    server.add_argument("--port", type=parse_port, default=0, help="by default any free port")
    server.add_argument("--background", action="store_true", help="return, and run until stop")
    for command in (run, server):
        command.add_argument(
            "--bare", action="store_true", help="without the tutorial's model and environment"
        )
        command.add_argument(
            "--docker",
            action="store_true",
            help="leave local=True and LocalWebservice to a real Docker Engine",
        )
        command.add_argument(
            "--data-dir", type=parse_folder, help="the folder of the data, or to download it to"
        )
    run.add_argument("command", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    page = commands.add_parser("portal", help="open the workspace's page in the browser")
    page.add_argument("--port", type=parse_port, default=0, help="by default any free port")
    page.add_argument("--no-browser", action="store_true", help="only print the link")
    listing = commands.add_parser("show", help="list what is registered and what runs, or a run")
    listing.add_argument("run", nargs="?", metavar="RUN", help="the id of a run to show instead")
    commands.add_parser("stop", help="stop the local workspace and all its services")
    wiping = commands.add_parser("wipe", help="stop it and delete everything that is registered")
    wiping.add_argument("--yes", action="store_true", help="do not ask for a confirmation")
    options = parser.parse_args(arguments)
    if options.verb == "exec":
        options.command = options.command[options.command[:1] == ["--"] :]
        if not options.command:
            run.error("a COMMAND is missing")
    return options


def parse_folder(text: str) -> Path:
    if not os.path.isdir(text):
        raise argparse.ArgumentTypeError(f"{text} is not a folder")
    return Path(text)


def parse_port(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and int(text) <= 65535):
        raise argparse.ArgumentTypeError(f"{text} is not a port: expected 0 to 65535")
    return int(text)


def exit_by_signal(number: int, frame: FrameType | None) -> None:
    raise SystemExit(SIGNAL_STATUS + number)


COMMANDS = {
    "exec": execute,
    "serve": serve,
    "portal": open_portal,
    "show": show,
    "stop": stop_workspace,
    "wipe": wipe_workspace,
}


def main(arguments: list[str] | None = None) -> int:
    options = parse_arguments(arguments)
    for number in signals.TERMINATION_SIGNALS:
        signal.signal(number, exit_by_signal)
    try:
        status = COMMANDS[options.verb](options)
        sys.stdout.flush()
        return status
    except BrokenPipeError:  # the reader of the output has ended, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return SIGNAL_STATUS + signals.BROKEN_PIPE
    except (LocalWorkspaceError, OSError) as error:
        report(str(error))
        return 1
    except KeyboardInterrupt:
        return SIGNAL_STATUS + signal.SIGINT
