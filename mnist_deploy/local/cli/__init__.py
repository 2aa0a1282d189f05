"""``python -m mnist_deploy.local``: run other people's notebooks on the local workspace."""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from types import FrameType

import psutil

from .. import LocalWorkspaceError, home_folder, start, wipe
from .command import BY_SIGNAL, NOT_EXECUTABLE, NOT_FOUND, run_command
from .page import open_page
from .session import open_session, say
from .show import show

EXEC = """\
Start or join the local workspace and run COMMAND in it, for instance

  python -m mnist_deploy.local exec -- jupyter lab
  python -m mnist_deploy.local exec -- jupyter execute their-notebook.ipynb

A bare Workspace.from_config() gives the local workspace: a config.json is lent to this folder
where none is. What the tutorial's notebooks expect to find is registered, unless --bare is given.
Kernels and modules that old notebooks name lead to those of today. Without a network, the data
comes from DIR, or from a sample.
"""
LISTS = ("PATH", "PYTHONPATH", "JUPYTER_PATH")


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m mnist_deploy.local", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    formatter = argparse.RawDescriptionHelpFormatter
    run = verbs.add_parser(
        "exec",
        help="run a command on it",
        usage="%(prog)s [--bare] [--data-dir DIR] -- COMMAND ...",
        description=EXEC,
        formatter_class=formatter,
    )
    serve = verbs.add_parser("serve", help="run it for several terminals, until Ctrl-C")
    serve.add_argument("--port", type=int, default=0, help="by default one that is free")
    for verb in (run, serve):
        verb.add_argument(
            "--bare", action="store_true", help="without what the tutorial's notebooks expect"
        )
        verb.add_argument("--data-dir", type=existing_folder, help="where the data lies, or is put")
    run.add_argument("command", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    page = verbs.add_parser("portal", help="open its page in the browser, until Ctrl-C")
    page.add_argument("--port", type=int, default=0, help="by default one that is free")
    page.add_argument("--no-browser", action="store_true", help="only print the link")
    verbs.add_parser("show", help="what is registered, what runs, where it lies")
    wiping = verbs.add_parser("wipe", help="stop it and delete everything that is registered")
    wiping.add_argument("--yes", action="store_true", help="do not ask")
    options = parser.parse_args(arguments)
    if options.verb == "exec":
        options.command = options.command[options.command[:1] == ["--"] :]
        if not options.command:
            run.error("a COMMAND is missing")
    return options


def existing_folder(text: str) -> Path:
    if not os.path.isdir(text):
        raise argparse.ArgumentTypeError(f"{text} is no folder")
    return Path(text)


def execute(options: argparse.Namespace) -> int:
    """Run a command on the local workspace and return its exit status."""
    endpoint = start()
    with open_session(options.command, data_dir=options.data_dir, bare=options.bare) as environment:
        try:
            status = run_command(options.command, environment)
        except OSError as error:
            say(f"{options.command[0]}: {error.strerror}")
            status = NOT_FOUND if isinstance(error, FileNotFoundError) else NOT_EXECUTABLE
    if not psutil.pid_exists(endpoint.pid):
        say(
            "The local workspace has ended before the command did. What is registered is kept: run "
            f"the command again. {endpoint.folder / 'control_plane.log'} may say why it ended."
        )
    return status


def serve(options: argparse.Namespace) -> int:
    """Keep the local workspace running and print what leads another terminal to it."""
    endpoint = start(port=options.port)
    if options.port and not endpoint.url.endswith(f":{options.port}"):
        say(f"It is running already, at {endpoint.url}.")
    with open_session(data_dir=options.data_dir, bare=options.bare) as environment:
        print("\n".join(exports(environment)), flush=True)
        say("Serving. Paste these lines into other terminals; Ctrl-C ends it for all of them.")
        while psutil.pid_exists(endpoint.pid):
            time.sleep(0.5)
    say("The local workspace was stopped by somebody else.")
    return 1


def exports(environment: Mapping[str, str]) -> list[str]:
    """The lines that give a POSIX shell what this environment has and ours has not."""
    lines = [f"unset {name}" for name in os.environ if name not in environment]
    for name, value in environment.items():
        before = os.environ.get(name)
        if name in LISTS:
            first = value.removesuffix(f"{os.pathsep}{before}")
            lines.append(f'export {name}={shlex.quote(first)}"${{{name}:+:${name}}}"')
        elif value != before:
            lines.append(f"export {name}={shlex.quote(value)}")
    return lines


def ask_and_wipe(options: argparse.Namespace) -> int:
    """Delete the local workspace, once somebody has said so."""
    home = home_folder()
    if not options.yes:
        print(f"This stops the local workspace in {home} and deletes all that is registered in it.")
        try:
            answer = input("Go on? [y/N] ")
        except EOFError:
            answer = ""
            print()
        if answer.strip().lower() not in ("y", "yes"):
            print("Nothing was deleted.")
            return 1
    print(f"Deleted what was registered in {wipe()}.")
    return 0


def end(number: int, frame: FrameType | None) -> None:
    raise SystemExit(BY_SIGNAL + number)


def main(arguments: list[str] | None = None) -> int:
    options = parse_arguments(arguments)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, end)
    verbs = {
        "exec": execute,
        "serve": serve,
        "portal": open_page,
        "show": show,
        "wipe": ask_and_wipe,
    }
    try:
        return verbs[options.verb](options)
    except (LocalWorkspaceError, OSError) as error:
        say(str(error))
        return 1
    except KeyboardInterrupt:
        return BY_SIGNAL + signal.SIGINT
