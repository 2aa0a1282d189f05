"""The environment of a command that finds the local workspace where it expects Azure."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import requests

from .. import LocalWorkspaceError, home_folder, start
from ..control_plane import call
from ..discovery import OTHER_DOCKER, OTHER_IDENTITIES, ControlPlaneAddress
from ..host import filesystem, processes
from ..scoring import aliases
from ..start_modules import program_folders, write_start_modules
from .config_file import find_config, read_subscription, write_temporary_config
from .kernels import AZURE_KERNELS, find_notebooks, kernel_of, write_kernels
from .tutorial import Tutorial, find_tutorial

NETWORK_TIMEOUT = 3.0  # seconds to find out whether there is a network


def report(line: str) -> None:
    """Print a line for the user on standard error; standard output belongs to the command."""
    print(f"[mnist_deploy.local] {line}", file=sys.stderr, flush=True)


@contextlib.contextmanager
def open_session(
    command: Sequence[str] = (),
    *,
    data_dir: Path | None = None,
    bare: bool = False,
    docker: bool = False,
) -> Iterator[dict[str, str]]:
    """Start or join the local workspace, and prepare an environment that leads to it.

    Parameters
    ----------
    command : sequence of str
        The folders of notebooks among its arguments get a config.json and kernels too.
    data_dir : Path, optional
        The folder of the tutorial's data, or to download it to; one of the workspace's by default.
    bare : bool
        Do not register the model and the environment that the tutorial's notebooks expect.
    docker : bool
        Leave ``local=True`` and ``LocalWebservice`` to a real Docker Engine.

    Yields
    ------
    dict of str to str
        The environment variables.

    Raises
    ------
    LocalWorkspaceError
        If the workspace does not start, or the model and the environment cannot be registered.
    """
    address = start()
    home = home_folder()
    data_dir = (data_dir or home / "data").absolute()
    words = (word for word in command if word.endswith(".ipynb"))
    notebooks = [Path(word).absolute() for word in words if os.path.isfile(word)]
    tutorial = find_tutorial()
    substitutes = tutorial.offline_substitutes if needs_substitutes(tutorial) else {}
    with contextlib.ExitStack() as stack:
        # The name lets the next control plane remove what a killed process has left.
        folder = Path(
            stack.enter_context(
                tempfile.TemporaryDirectory(prefix=f"mnist-deploy-{os.getpid()}-exec-")
            )
        )
        environment = {
            **processes.ENCODING,
            **inherited_variables(docker),
            **address.environment(),
            **({} if docker else {"DOCKER_HOST": address.docker_host}),
            "MNIST_DEPLOY_HOME": str(home),
            "MNIST_DEPLOY_DATA": str(data_dir),
            aliases.SUBSTITUTES: join_pairs(substitutes),
            aliases.FALLBACK_MODULES: join_pairs(tutorial.fallback_modules),
            "PATH": prepend("PATH", *program_folders()),
            "PYTHONPATH": prepend("PYTHONPATH", *write_start_modules(folder / "python")),
            "JUPYTER_PATH": prepend("JUPYTER_PATH", add_kernels(folder / "jupyter", notebooks)),
        }
        if tutorial.prepare and not bare:
            prepare(tutorial.prepare, environment, home, data_dir, folder)
        for place in dict.fromkeys((Path.cwd(), *(notebook.parent for notebook in notebooks))):
            stack.enter_context(config_in(place, address))
        yield environment


def inherited_variables(docker: bool) -> dict[str, str]:
    """The variables of this process, but for those that lead an SDK elsewhere."""
    left_out = OTHER_IDENTITIES if docker else OTHER_IDENTITIES + OTHER_DOCKER
    return {name: value for name, value in os.environ.items() if name not in left_out}


def join_pairs(modules: Mapping[str, str]) -> str:
    return ",".join(f"{name}={module}" for name, module in modules.items())


def prepend(variable: str, *folders: Path) -> str:
    return os.pathsep.join(filter(None, (*map(str, folders), os.environ.get(variable))))


def needs_substitutes(tutorial: Tutorial) -> bool:
    """Whether a module with an offline substitute is not installed, or cannot reach its data."""
    if not tutorial.offline_substitutes:
        return False
    names = ", ".join(tutorial.offline_substitutes)
    if not all(map(is_installed, tutorial.offline_substitutes)):
        report(f"{names} is not installed. An offline substitute takes its place.")
        return True
    try:
        requests.head(tutorial.data_host, timeout=NETWORK_TIMEOUT)
    except requests.RequestException:
        report(f"There is no network. An offline substitute takes the place of {names}.")
        return True
    return False


def is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # its package is missing
        return False


def add_kernels(folder: Path, notebooks: Sequence[Path]) -> Path:
    """Write a kernel of the running Python for each kernel name in a notebook of the folder."""
    named = map(kernel_of, [*notebooks, *find_notebooks(Path.cwd())])
    write_kernels(folder, {*AZURE_KERNELS, *filter(None, named)})
    return folder


def prepare(
    module: str, environment: Mapping[str, str], home: Path, data_dir: Path, folder: Path
) -> None:
    """Run the tutorial's module that registers what its notebooks expect, one process at a time.

    The terminal's Ctrl-C does not reach that process, so it ends without a traceback.
    """
    with open(home / "run" / "preparing", "w") as lock:
        filesystem.lock(lock)
        process = processes.start_background(
            ["-m", module, str(data_dir)],
            env={**environment, "MNIST_DEPLOY_UNATTENDED": "1"},
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=sys.stderr.fileno(),
        )
        try:
            status = processes.wait_for(process)
        except BaseException:
            processes.kill_group(process)
            process.wait()
            raise
    if status != 0:
        raise LocalWorkspaceError(
            "The model and the environment that the tutorial's notebooks expect could not be "
            "registered. Run with --bare to do without them, or with --data-dir and a folder that "
            "holds the data."
        )


@contextlib.contextmanager
def config_in(folder: Path, address: ControlPlaneAddress) -> Iterator[None]:
    """Let ``Workspace.from_config()`` in `folder` return the local workspace."""
    config = find_config(folder)
    subscription = config and read_subscription(config)
    if subscription:
        call(address, "POST", "/subscriptions", {"subscriptionId": subscription})
        report(f"{config} names a workspace of yours: this command gets the local one instead.")
        yield
        return
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(write_temporary_config(folder))
        except OSError as error:
            report(
                f"No config.json can be written in {folder} ({error.strerror}): there, "
                "from_config() will not find the local workspace."
            )
        yield
