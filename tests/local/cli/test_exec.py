"""``exec`` and ``serve`` as processes, each with a separate workspace."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import nbformat
import pytest
import requests
from polling import wait_until
from terminal import LOCAL, Terminal, execute, run, runs_from

from mnist_deploy.local import SUBSCRIPTION, cli
from mnist_deploy.local.cli import session, tutorial
from mnist_deploy.local.cli.serve import export_lines
from mnist_deploy.local.discovery import ControlPlaneAddress
from mnist_deploy.local.host import signals
from mnist_deploy.tutorial import LOCAL_WORKSPACE

POSIX = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such shell or terminal")

SHOW_WORKSPACE = (
    "from azureml.core import Workspace; ws = Workspace.from_config(); "
    "print('FOUND', ws.name, ws.subscription_id)"
)
OTHER_ID = "11111111-2222-3333-4444-555555555555"


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    """The home folder of the local workspace of one test."""
    folder = tmp_path / "home"
    monkeypatch.setenv("MNIST_DEPLOY_HOME", str(folder))
    monkeypatch.delenv("REQUESTS_CA_BUNDLE", raising=False)
    return folder


@pytest.fixture
def here(tmp_path, home, monkeypatch) -> Path:
    """The working directory of the commands."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def everything_in(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


@POSIX
def test_workspace_from_config_returns_the_local_workspace_and_leaves_no_file(here, home):
    """The command runs in a subfolder; exec forwards its input, output and exit status."""
    (here / "deep").mkdir()
    script = (
        f"cd deep && python -c {shlex.quote(SHOW_WORKSPACE)} && cat && "
        "python -c 'import sys; print(sys.executable)' && which jupyter && exit 7"
    )
    answer = run("exec", "--bare", "--", "bash", "-c", script, text="a line\n")
    assert answer.returncode == 7, answer.stderr
    found, line, python, jupyter = answer.stdout.splitlines()
    assert (found, line) == (f"FOUND local {SUBSCRIPTION}", "a line")
    assert Path(python).samefile(sys.executable)
    assert Path(jupyter).parent == Path(sys.executable).parent
    assert everything_in(here) == {"deep"}
    wait_until(lambda: not runs_from(home), seconds=5)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["exec", "--bare"], "a COMMAND is missing"),
        (["exec", "--data-dir", "nowhere", "--", "true"], "is not a folder"),
        (["exec", "--unknown", "--", "true"], "unrecognized arguments"),
        (["fly"], "invalid choice"),
        (["portal", "--port", "99999"], "99999 is not a port"),
        (["serve", "--port", "-1"], "-1 is not a port"),
    ],
)
def test_missing_argument_is_reported(capsys, arguments, complaint):
    with pytest.raises(SystemExit):
        cli.main(arguments)
    assert complaint in capsys.readouterr().err


@POSIX
@pytest.mark.processes
@pytest.mark.parametrize(("command", "status"), [("no-such-command", 127), ("/dev/null", 126)])
def test_unknown_command_is_reported_with_its_exit_status(here, command, status):
    answer = execute(command)
    assert answer.returncode == status
    assert "Traceback" not in answer.stderr


@pytest.mark.processes
def test_existing_config_is_used_and_kept(here):
    config = {"subscription_id": OTHER_ID, "resource_group": "rg", "workspace_name": "mine"}
    (here / "config.json").write_text(json.dumps(config))
    answer = execute("python", "-c", SHOW_WORKSPACE)
    assert f"FOUND mine {OTHER_ID}" in answer.stdout
    assert f"{here / 'config.json'} names a workspace of yours" in answer.stderr
    assert everything_in(here) == {"config.json"}
    assert json.loads((here / "config.json").read_text()) == config


def test_exec_runs_without_a_config_in_an_unwritable_folder(here, capsys):
    (here / ".azureml").write_text("in the way")
    with session.config_in(here, ControlPlaneAddress("https://127.0.0.1:9", 1, "token", here)):
        pass
    error = capsys.readouterr().err
    assert f"No config.json can be written in {here} (File " in error
    assert "exists)" in error


@POSIX
@pytest.mark.processes
def test_concurrent_commands_share_workspace_and_config(here, home, monkeypatch):
    """The first command to end does not remove the config that the second command needs."""
    # The prompt of Python 3.13 ends exit(3) with status 1 after -i -c.
    monkeypatch.setenv("PYTHON_BASIC_REPL", "1")
    register = (
        "import pathlib; from azureml.core import Model; pathlib.Path('m.txt').write_text('1');"
        "Model.register(ws, 'm.txt', 'shared')"
    )
    second = Terminal(
        *LOCAL, "exec", "--bare", "--", "python", "-i", "-c", f"{SHOW_WORKSPACE}; print(1)"
    )
    second.read_until("FOUND local")
    (here / "below").mkdir()  # where the config of the folder above serves
    first = execute("python", "-c", f"{SHOW_WORKSPACE}; {register}", cwd=here / "below")
    assert first.returncode == 0, first.stderr
    assert (here / ".azureml" / "config.json").is_file()
    second.type("from azureml.core import Model; print('SEEN', Model(ws, 'shared').id)\n")
    second.read_until(r"SEEN shared:1")
    second.type("ws = Workspace.from_config(); print('AGAIN', ws.name)\n")
    second.read_until(r"AGAIN local")
    second.type("exit(3)\n")
    assert second.end() == 3
    assert everything_in(here) == {"below", "below/m.txt"}
    wait_until(lambda: not runs_from(home), seconds=5)


@POSIX
@pytest.mark.slow
def test_nested_exec_uses_its_own_workspace(here, tmp_path):
    inner = f"MNIST_DEPLOY_HOME={shlex.quote(str(tmp_path / 'other'))} {shlex.join(LOCAL)}"
    script = f"{inner} exec --bare -- python -c {shlex.quote(SHOW_WORKSPACE)}"
    answer = execute("bash", "-c", f"{script} && python -c {shlex.quote(SHOW_WORKSPACE)}")
    assert answer.stdout.count("FOUND local") == 2, answer.stderr


SLOW_DEPLOYMENT = """
import time
from azureml.core import Environment, Workspace
from azureml.core.model import InferenceConfig, Model
from azureml.core.webservice import AciWebservice

init = "def init(): print('init', flush=True); time.sleep(600)"
open("slow.py", "w").write("import time\\n" + init + "\\ndef run(data): pass\\n")
config = InferenceConfig("slow.py", environment=Environment("e"))
service = Model.deploy(Workspace.from_config(), "slow", [], config,
                       AciWebservice.deploy_configuration())
while "init" not in (service.get_logs() or ""):
    time.sleep(0.2)
print("NOW", flush=True)
service.wait_for_deployment()
"""


@POSIX
@pytest.mark.processes
def test_ctrl_c_during_a_deployment_leaves_no_process_and_no_file(here, home):
    (here / "deploy.py").write_text(SLOW_DEPLOYMENT)
    terminal = Terminal(*LOCAL, "exec", "--bare", "--", "python", "deploy.py")
    terminal.read_until("NOW")
    assert len(runs_from(home)) >= 2  # the control plane and a container
    terminal.type("\x03")
    assert terminal.end() == 128 + signal.SIGINT
    assert everything_in(here) == {"deploy.py", "slow.py"}
    assert "KeyboardInterrupt" in terminal.output  # the script's own
    assert "mnist_deploy/local" not in terminal.output
    wait_until(lambda: not runs_from(home), seconds=5)


@POSIX
@pytest.mark.processes
@pytest.mark.parametrize("number", signals.TERMINATION_SIGNALS)
def test_signal_is_forwarded_to_the_command_and_leaves_no_process(here, home, number):
    script = f"trap 'echo caught; exit 9' {number.value}; echo ready; while :; do sleep 0.1; done"
    terminal = Terminal(*LOCAL, "exec", "--bare", "--", "bash", "-c", script)
    terminal.read_until("ready")
    os.kill(terminal.pid, number)
    terminal.read_until("caught")
    assert (terminal.end(), everything_in(here)) == (9, set())
    wait_until(lambda: not runs_from(home), seconds=5)


@POSIX
@pytest.mark.processes
def test_interactive_python_uses_the_local_workspace(here):
    """``exec -- python`` on a terminal."""
    terminal = Terminal(*LOCAL, "exec", "--bare", "--", "python")
    terminal.read_until(">>> ")
    terminal.type("from azureml.core import Workspace; print('IS', Workspace.from_config().name)\n")
    terminal.read_until(r"IS local")
    terminal.type("import time; print('SLEEPS'); time.sleep(100)\n")
    terminal.read_until(r"SLEEPS\s")
    terminal.type("\x03")
    terminal.read_until("KeyboardInterrupt")
    terminal.type("print(6 * 7)\n")  # it is still there
    terminal.read_until("42")
    terminal.type("exit()\n")
    assert terminal.end() == 0


@POSIX
@pytest.mark.processes
def test_missing_kernel_is_replaced_by_the_running_python(here):
    """The kernel is named by a notebook in a subfolder, which the test executes."""
    folder = here.parent / "elsewhere"
    folder.mkdir()
    metadata = {"kernelspec": {"name": "our-course-2019", "display_name": "x"}}
    cell = f"import sys, neighbour; print(sys.executable); {SHOW_WORKSPACE}"
    cells = [nbformat.v4.new_code_cell(cell)]
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=metadata), folder / "a.ipynb")
    (folder / "neighbour.py").write_text("")
    both = "jupyter execute --inplace ../elsewhere/a.ipynb && jupyter kernelspec list --json"
    answer = execute("sh", "-c", both, "../elsewhere/a.ipynb")  # among its arguments
    assert answer.returncode == 0, answer.stderr
    (cell,) = nbformat.read(folder / "a.ipynb", as_version=4).cells
    python, workspace = "".join(output.text for output in cell.outputs).splitlines()
    assert Path(python).samefile(sys.executable)
    assert workspace == f"FOUND local {SUBSCRIPTION}"
    assert not (folder / ".azureml").exists()
    listed = json.loads(answer.stdout)["kernelspecs"]
    for name in ("python3", "python36", "python38-azureml"):
        assert listed[name]["spec"]["argv"][0] == sys.executable


# The entry point of the tutorial


def test_tutorial_entry_point_is_found_and_optional(monkeypatch):
    assert tutorial.find_tutorial().prepare == LOCAL_WORKSPACE["prepare"]
    monkeypatch.setattr(tutorial, "GROUP", "no.such.group")
    assert tutorial.find_tutorial() == tutorial.Tutorial()


@pytest.mark.parametrize(
    ("substitutes", "network", "needed"),
    [
        ({}, False, False),
        ({"no.such.module": "x"}, True, True),
        ({"json": "x"}, False, True),
        ({"json": "x"}, True, False),
    ],
)
def test_offline_substitutes_replace_missing_modules_only(
    monkeypatch, capsys, substitutes, network, needed
):
    def head(url: str, timeout: float) -> None:
        if not network:
            raise requests.ConnectionError

    monkeypatch.setattr(requests, "head", head)
    known = tutorial.Tutorial(offline_substitutes=substitutes, data_host="http://data.example")
    assert session.needs_substitutes(known) is needed
    assert ("offline substitute takes" in capsys.readouterr().err) is needed


@pytest.mark.slow
def test_part_one_is_prepared_before_the_command(here, sample_dir):
    script = (
        f"{SHOW_WORKSPACE}; from azureml.core import Environment, Model;"
        "print(Model(ws, 'sklearn_mnist').id, Environment.get(ws, 'tutorial-env', '1').name)"
    )
    for _ in range(2):  # the second time it is there already
        answer = run("exec", "--data-dir", str(sample_dir), "--", "python", "-c", script)
        assert "sklearn_mnist:1 tutorial-env" in answer.stdout, answer.stderr
    assert everything_in(here) == set()
    assert "accuracy 0." in run("show").stdout


@POSIX
@pytest.mark.processes
def test_ctrl_c_during_part_one_stops_the_command(here, home, sample_dir):
    terminal = Terminal(*LOCAL, "exec", "--data-dir", str(sample_dir), "--", "echo", "reached it")
    terminal.read_until("MNIST: ")
    terminal.type("\x03")
    assert terminal.end() == 128 + signal.SIGINT
    assert not [message for message in ("Traceback", "reached it") if message in terminal.output]
    assert everything_in(here) == set()
    wait_until(lambda: not runs_from(home), seconds=5)


@pytest.mark.processes
def test_failed_part_one_is_reported(here, tmp_path):
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    (damaged / "train-images-idx3-ubyte.gz").write_bytes(b"no gzip at all")
    answer = run("exec", "--data-dir", str(damaged), "--", "echo", "reached")
    assert (answer.returncode, answer.stdout) == (1, "")
    assert "--bare" in answer.stderr
    assert "Traceback" not in answer.stderr


@pytest.mark.processes
def test_open_datasets_works_without_a_network(here, sample_dir):
    """The tutorial's own lines get the files of --data-dir, where its glob finds them."""
    script = """
import glob, os
from azureml.core import Dataset
from azureml.opendatasets import MNIST

folder = os.path.join(os.getcwd(), "data")
os.makedirs(folder, exist_ok=True)
MNIST.get_file_dataset().download(folder, overwrite=True)
print(*glob.glob(os.path.join(folder, "**/t10k-images-idx3-ubyte.gz"), recursive=True))
"""
    answer = run("exec", "--bare", "--data-dir", str(sample_dir), "--", "python", "-c", script)
    if "offline substitute takes" not in answer.stderr:
        pytest.skip("there is a network, and the genuine library was left alone")
    found = Path(answer.stdout.split()[-1])
    assert found.read_bytes() == (sample_dir / "t10k-images-idx3-ubyte.gz").read_bytes()


# serve


@POSIX
def test_shell_exports_contain_changed_variables_only(monkeypatch):
    monkeypatch.setenv("PATH", "/usr/bin")
    monkeypatch.setenv("GONE", "x")
    environment = {**os.environ, "PATH": "/mine:/usr/bin", "NEW": "it's new"}
    del environment["GONE"]
    exports = export_lines(environment)
    assert len(exports) == 3
    shell = subprocess.run(
        ["/bin/sh", "-c", "\n".join(exports) + '\necho "$PATH $NEW $GONE."'],
        env={"PATH": "/theirs", "GONE": "x"},
        capture_output=True,
        text=True,
    )
    assert shell.stdout == "/mine:/theirs it's new .\n"


@POSIX
@pytest.mark.processes
def test_serve_prints_exports_for_other_terminals(here, home, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    terminal = Terminal(*LOCAL, "serve", "--bare", "--port", str(port))
    terminal.read_until("Serving")
    assert f"127.0.0.1:{port}/" in terminal.output
    exports = [line for line in terminal.output.splitlines() if line.startswith("export ")]
    script = "\n".join([*exports, f'python -c "{SHOW_WORKSPACE}"; echo "$PATH"'])
    # The shell inherits no variables; its PATH lacks the running Python.
    answer = subprocess.run(
        ["sh", "-c", script.replace("\r", "")],
        env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert f"FOUND local {SUBSCRIPTION}" in answer.stdout, answer.stderr
    assert answer.stdout.endswith(f"{Path(sys.executable).parent}:/usr/bin:/bin\n")
    terminal.type("\x03")
    assert terminal.end() == 128 + signal.SIGINT
    assert "Traceback" not in terminal.output
    wait_until(lambda: not runs_from(home), seconds=5)
    assert everything_in(here) == set()


@POSIX
@pytest.mark.processes
def test_serve_ends_after_a_signal_or_stop(here, home):
    terminal = Terminal(*LOCAL, "serve", "--bare")
    terminal.read_until("Serving")
    os.kill(terminal.pid, signal.SIGTERM)
    assert terminal.end() == 128 + signal.SIGTERM
    terminal = Terminal(*LOCAL, "serve", "--bare")
    terminal.read_until("Serving")
    assert run("wipe", "--yes").returncode == 0
    terminal.read_until("was stopped")
    assert terminal.end() == 1


@pytest.mark.processes
def test_background_serve_reports_its_failure(here, home):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        answer = run("serve", "--bare", "--background", "--port", str(port))
    assert (answer.returncode, answer.stdout) == (1, "")
    assert re.search("Address already in use|WinError 10048", answer.stderr)


def test_version_is_printed(capsys):
    with pytest.raises(SystemExit, match="0"):
        cli.main(["--version"])
    assert capsys.readouterr().out == f"mnist_deploy {version('mnist-deploy')}\n"


@POSIX
def test_closed_pipe_ends_a_command_without_a_traceback(here):
    script = f"({shlex.join(LOCAL)} show; echo status $? >&2) | (exec 0<&-; true)"
    answer = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=60)
    assert answer.stderr in ("status 0\n", f"status {128 + signal.SIGPIPE}\n")
