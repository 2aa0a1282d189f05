"""What a command is given so that it finds the local workspace where it expects Azure."""

from __future__ import annotations

import contextlib
import fcntl
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import requests

from .. import LocalWorkspaceError, home_folder, start
from ..control_plane import call
from ..discovery import OTHER_IDENTITIES, ControlPlaneAddress
from ..scoring import aliases
from ..session_hooks.copies import write_hooks
from .config_file import find_config, lend_config, read_subscription
from .kernels import AZURE_KERNELS, find_notebooks, kernel_of, write_kernels
from .tutorial import Tutorial, find_tutorial

PATIENCE = 3.0  # seconds to find out whether there is a network


def say(line: str) -> None:
    """Tell the person at the terminal; standard output is the command's."""
    print(f"[mnist_deploy.local] {line}", file=sys.stderr, flush=True)


@contextlib.contextmanager
def open_session(
    command: Sequence[str] = (), *, data_dir: Path | None = None, bare: bool = False
) -> Iterator[dict[str, str]]:
    """Start or join the local workspace, and lead what is run meanwhile to it.

    Parameters
    ----------
    command : sequence of str
        Notebooks among its arguments get a config.json and kernels where they lie.
    data_dir : Path, optional
        Where the tutorial's data lies or is downloaded to; a folder of the workspace's by default.
    bare : bool
        Do without what the tutorial's notebooks expect to find registered.

    Yields
    ------
    dict of str to str
        The environment to run it in.

    Raises
    ------
    LocalWorkspaceError
        If the workspace does not start, or what is expected in it cannot be prepared.
    """
    endpoint = start()
    home = home_folder()
    data_dir = (data_dir or home / "data").absolute()
    words = (word for word in command if word.endswith(".ipynb"))
    notebooks = [Path(word).absolute() for word in words if os.path.isfile(word)]
    with contextlib.ExitStack() as stack:
        tutorial = find_tutorial()
        stand_ins = tutorial.stand_ins if needs_stand_ins(tutorial) else {}
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mnist_deploy-")))
        inherited = {name: os.environ[name] for name in os.environ if name not in OTHER_IDENTITIES}
        environment = {
            **inherited,
            **endpoint.environment(),
            "MNIST_DEPLOY_HOME": str(home),
            "MNIST_DEPLOY_DATA": str(data_dir),
            aliases.STAND_INS: join_pairs(stand_ins),
            aliases.FALLBACK_MODULES: join_pairs(tutorial.fallback_modules),
            "PATH": prepend(Path(sys.executable).parent, "PATH"),
            "PYTHONPATH": os.pathsep.join(
                [
                    str(add_aliases(folder / "python")),
                    prepend(write_hooks(folder / "hooks"), "PYTHONPATH"),
                ]
            ),
            "JUPYTER_PATH": prepend(add_kernels(folder / "jupyter", notebooks), "JUPYTER_PATH"),
        }
        if tutorial.prepare and not bare:
            prepare(tutorial.prepare, environment, home, data_dir, folder)
        for place in dict.fromkeys((Path.cwd(), *(notebook.parent for notebook in notebooks))):
            stack.enter_context(config_in(place, endpoint))
        yield environment


def join_pairs(modules: Mapping[str, str]) -> str:
    return ",".join(f"{name}={module}" for name, module in modules.items())


def prepend(folder: Path, variable: str) -> str:
    return os.pathsep.join(filter(None, (str(folder), os.environ.get(variable))))


def add_aliases(folder: Path) -> Path:
    """Let every Python that is started look up module names that are no more."""
    folder.mkdir()
    shutil.copyfile(aliases.__file__, folder / "sitecustomize.py")
    return folder


def needs_stand_ins(tutorial: Tutorial) -> bool:
    """Whether a module that others stand in for is not there, or could not reach its data."""
    if not tutorial.stand_ins:
        return False
    names = ", ".join(tutorial.stand_ins)
    if not all(map(is_installed, tutorial.stand_ins)):
        say(f"{names} is not installed: a stand-in takes its place.")
        return True
    try:
        requests.head(tutorial.data_host, timeout=PATIENCE)
    except requests.RequestException:
        say(f"No network: a stand-in takes the place of {names}.")
        return True
    return False


def is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # its package is missing
        return False


def add_kernels(folder: Path, notebooks: Sequence[Path]) -> Path:
    """Make every kernel that a notebook here names lead to the running Python."""
    named = map(kernel_of, [*notebooks, *find_notebooks(Path.cwd())])
    write_kernels(folder, {*AZURE_KERNELS, *filter(None, named)})
    return folder


def prepare(
    module: str, environment: Mapping[str, str], home: Path, data_dir: Path, folder: Path
) -> None:
    """Let the tutorial register what its notebooks expect, one process at a time.

    It is out of reach of the terminal's Ctrl-C, and so ends without a traceback.
    """
    with open(home / "run" / "preparing", "w") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        process = subprocess.Popen(
            [sys.executable, "-m", module, str(data_dir)],
            env={**environment, "MNIST_DEPLOY_UNATTENDED": "1"},
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=sys.stderr.fileno(),
            start_new_session=True,
        )
        try:
            status = process.wait()
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise
    if status != 0:
        raise LocalWorkspaceError(
            "What the tutorial's notebooks expect to find could not be prepared. Run with --bare "
            "to do without it, or with --data-dir and a folder that holds its data."
        )


@contextlib.contextmanager
def config_in(folder: Path, endpoint: ControlPlaneAddress) -> Iterator[None]:
    """See to it that ``Workspace.from_config()`` in `folder` finds the local workspace."""
    config = find_config(folder)
    subscription = config and read_subscription(config)
    if subscription:
        call(endpoint, "POST", "/subscriptions", {"subscriptionId": subscription})
        say(f"{config} names a workspace of yours: in here it leads to the local one.")
        yield
        return
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(lend_config(folder))
        except OSError as error:
            say(
                f"{folder} takes no config.json ({error.strerror}): from_config() will not find it."
            )
        yield
