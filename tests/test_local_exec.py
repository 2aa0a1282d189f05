"""``python -m mnist_deploy.local``: commands run for real, each in a workspace of its own."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import shlex
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import psutil
import pytest

LOCAL = (sys.executable, "-m", "mnist_deploy.local")
SHOW_WORKSPACE = (
    "from azureml.core import Workspace; ws = Workspace.from_config(); "
    "print('FOUND', ws.name, ws.subscription_id)"
)
LOCAL_ID = "00000000-0000-0000-0000-000000000000"
OTHER_ID = "11111111-2222-3333-4444-555555555555"


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    """Where the local workspace of one test lies."""
    folder = tmp_path / "home"
    monkeypatch.setenv("MNIST_DEPLOY_HOME", str(folder))
    monkeypatch.delenv("REQUESTS_CA_BUNDLE", raising=False)
    return folder


@pytest.fixture
def here(tmp_path, home, monkeypatch) -> Path:
    """The folder that the commands run in."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def run(*arguments: str, cwd: Path | None = None, text: str = "") -> subprocess.CompletedProcess:
    return subprocess.run(
        [*LOCAL, *arguments],
        cwd=cwd,
        input=text,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def execute(*command: str, cwd: Path | None = None) -> subprocess.CompletedProcess:
    return run("exec", "--bare", "--", *command, cwd=cwd)


def everything_in(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def wait_until(condition, seconds: float = 30) -> None:
    give_up_at = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < give_up_at
        time.sleep(0.05)


def runs_from(home: Path) -> list[int]:
    """The processes that belong to the local workspace in `home`."""
    found = []
    for process in psutil.process_iter(["pid", "cmdline", "cwd"]):
        words = [*(process.info["cmdline"] or []), process.info["cwd"] or ""]
        if any(word.startswith(str(home)) for word in words):
            found.append(process.info["pid"])
    return found


class Terminal:
    """A command in a terminal of its own, so that Ctrl-C is what it is for a person."""

    def __init__(self, *arguments: str) -> None:
        self.output = ""
        self.pid, self._screen = pty.fork()
        if self.pid == 0:
            os.execv(LOCAL[0], [*LOCAL, *arguments])

    def type(self, text: str) -> None:
        os.write(self._screen, text.encode())

    def read_until(self, pattern: str, seconds: float = 60) -> None:
        give_up_at = time.monotonic() + seconds
        while not re.search(pattern, self.output):
            assert time.monotonic() < give_up_at, self.output
            if not self._read():
                pytest.fail(f"it ended before {pattern!r} was seen:\n{self.output}")

    def end(self) -> int:
        """Read to the end; return the exit status."""
        while self._read():
            pass
        os.close(self._screen)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def _read(self) -> bool:
        try:
            if select.select([self._screen], [], [], 0.2)[0]:
                chunk = os.read(self._screen, 65536)
                self.output += chunk.decode(errors="replace")
                return bool(chunk)
        except OSError:  # Linux: the other end is closed
            return False
        return True


def test_a_bare_from_config_finds_the_local_workspace(here):
    answer = execute("python", "-c", SHOW_WORKSPACE)
    assert f"FOUND local {LOCAL_ID}" in answer.stdout
    assert everything_in(here) == set()


def test_works_in_a_folder_below(here):
    below = here / "notebooks" / "deep"
    below.mkdir(parents=True)
    script = f"cd {shlex.quote(str(below))} && python -c {shlex.quote(SHOW_WORKSPACE)}"
    assert "FOUND local" in execute("bash", "-c", script).stdout


def test_a_config_of_ones_own_leads_here_and_stays(here):
    config = {"subscription_id": OTHER_ID, "resource_group": "rg", "workspace_name": "mine"}
    (here / "config.json").write_text(json.dumps(config))
    answer = execute("python", "-c", SHOW_WORKSPACE)
    assert f"FOUND mine {OTHER_ID}" in answer.stdout
    assert f"{here / 'config.json'} names a workspace of yours" in answer.stderr
    assert everything_in(here) == {"config.json"}
    assert json.loads((here / "config.json").read_text()) == config


def test_the_file_that_write_config_leaves_is_understood_too(here):
    folder = here / ".azureml"
    folder.mkdir()
    scope = (
        f"/subscriptions/{OTHER_ID}/resourceGroups/rg/providers/"
        "Microsoft.MachineLearningServices/workspaces/mine/projects/p"
    )
    (folder / "config.json").write_text(json.dumps({"Id": None, "Scope": scope}))
    assert f"FOUND mine {OTHER_ID}" in execute("python", "-c", SHOW_WORKSPACE).stdout


def test_a_config_json_of_something_else_is_left_alone(here):
    (here / "config.json").write_text('{"compilerOptions": {}}')
    assert "FOUND local" in execute("python", "-c", SHOW_WORKSPACE).stdout
    assert everything_in(here) == {"config.json"}


def test_a_config_that_the_command_writes_is_kept(here):
    script = f"{SHOW_WORKSPACE}; ws.write_config()"
    assert execute("python", "-c", script).returncode == 0
    assert "Scope" in json.loads((here / ".azureml" / "config.json").read_text())


def test_goes_on_where_no_config_can_be_written(here):
    (here / ".azureml").write_text("in the way")
    answer = execute("bash", "-c", "echo ran")
    assert answer.stdout == "ran\n"
    assert "takes no config.json" in answer.stderr


@pytest.mark.parametrize(
    ("command", "status"),
    [
        (("bash", "-c", "exit 7"), 7),
        (("bash", "-c", "kill -TERM $$"), 128 + signal.SIGTERM),
        (("no-such-command",), 127),
        (("/dev/null",), 126),
    ],
)
def test_passes_the_exit_status_on(here, command, status):
    answer = execute(*command)
    assert answer.returncode == status
    assert "Traceback" not in answer.stderr


def test_output_and_input_are_the_commands_own(here):
    answer = run("exec", "--bare", "--", "cat", text="a line\n")
    assert answer.stdout == "a line\n"


def test_python_and_jupyter_are_the_running_ones(here):
    script = "import sys, shutil; print(sys.executable); print(shutil.which('jupyter'))"
    python, jupyter = execute("python", "-c", script).stdout.split()
    assert Path(python).samefile(sys.executable)
    assert Path(jupyter).parent == Path(sys.executable).parent


def test_says_what_is_missing(here):
    assert "a COMMAND is missing" in run("exec", "--bare").stderr
    assert "is no folder" in run("exec", "--data-dir", "nowhere", "--", "true").stderr


def test_two_at_once_share_workspace_and_config(here, home, monkeypatch):
    """The first one to end leaves the second what it needs."""
    # The prompt of Python 3.13 ends exit(3) with status 1 after -i -c.
    monkeypatch.setenv("PYTHON_BASIC_REPL", "1")
    register = (
        "import pathlib; from azureml.core import Model; pathlib.Path('m.txt').write_text('1');"
        "Model.register(ws, 'm.txt', 'shared')"
    )
    second = Terminal("exec", "--bare", "--", "python", "-i", "-c", f"{SHOW_WORKSPACE}; print(1)")
    second.read_until("FOUND local")
    first = execute("python", "-c", f"{SHOW_WORKSPACE}; {register}")
    assert first.returncode == 0, first.stderr
    assert (here / ".azureml" / "config.json").is_file()
    second.type("from azureml.core import Model; print('SEEN', Model(ws, 'shared').id)\n")
    second.read_until(r"SEEN shared:1")
    second.type("ws = Workspace.from_config(); print('AGAIN', ws.name)\n")
    second.read_until(r"AGAIN local")
    second.type("exit(3)\n")
    assert second.end() == 3
    assert everything_in(here) == {"m.txt"}
    wait_until(lambda: not runs_from(home), seconds=5)


def test_two_at_once_in_different_folders(here, home):
    (here / "below").mkdir()
    below = Terminal(
        "exec", "--bare", "--", "bash", "-c", f"cd {shlex.quote(str(here))}; echo up; cat"
    )
    below.read_until("up")
    found = execute("bash", "-c", f"ls -a; python -c {shlex.quote(SHOW_WORKSPACE)}",
                    cwd=here / "below")  # fmt: skip
    below.type("\x04")
    assert below.end() == 0
    assert "FOUND local" in found.stdout
    assert ".azureml" in found.stdout.split()
    assert everything_in(here) == {"below"}


def test_takes_up_the_config_of_one_that_was_killed(here, home):
    killed = subprocess.Popen([*LOCAL, "exec", "--bare", "--", "sleep", "100"])
    config = here / ".azureml" / "config.json"
    wait_until(config.is_file)
    (child,) = [p for p in psutil.Process(killed.pid).children() if p.name() == "sleep"]
    killed.kill()
    killed.wait()
    child.kill()
    assert config.is_file()
    assert "FOUND local" in execute("python", "-c", SHOW_WORKSPACE).stdout
    assert everything_in(here) == set()


@pytest.mark.slow
def test_within_the_environment_of_another_local_workspace(here, tmp_path):
    inner = f"MNIST_DEPLOY_HOME={shlex.quote(str(tmp_path / 'other'))} {shlex.join(LOCAL)}"
    script = f"{inner} exec --bare -- python -c {shlex.quote(SHOW_WORKSPACE)}"
    answer = execute("bash", "-c", f"{script} && python -c {shlex.quote(SHOW_WORKSPACE)}")
    assert answer.stdout.count("FOUND local") == 2, answer.stderr


SLOW_DEPLOYMENT = """
from azureml.core import Environment, Workspace
from azureml.core.model import InferenceConfig, Model
from azureml.core.webservice import AciWebservice

open("slow.py", "w").write(
    "import time\\n"
    "def init():\\n    print('init', flush=True); time.sleep(600)\\n"
    "def run(data):\\n    return data\\n"
)
ws = Workspace.from_config()
service = Model.deploy(
    ws, "slow", [], InferenceConfig("slow.py", environment=Environment("e")),
    AciWebservice.deploy_configuration(),
)
import time
while "init" not in (service.get_logs() or ""):
    time.sleep(0.2)
print("NOW", flush=True)
service.wait_for_deployment()
"""


def test_ctrl_c_in_the_middle_of_a_deployment_leaves_nothing(here, home):
    (here / "deploy.py").write_text(SLOW_DEPLOYMENT)
    terminal = Terminal("exec", "--bare", "--", "python", "deploy.py")
    terminal.read_until("NOW")
    assert len(runs_from(home)) >= 2  # the control plane and a container
    terminal.type("\x03")
    assert terminal.end() == 128 + signal.SIGINT
    assert everything_in(here) == {"deploy.py", "slow.py"}
    assert "KeyboardInterrupt" in terminal.output  # the script's own
    assert "mnist_deploy/local" not in terminal.output
    wait_until(lambda: not runs_from(home), seconds=5)


def test_ctrl_c_while_part_one_is_prepared(here, home, sample_dir):
    terminal = Terminal("exec", "--data-dir", str(sample_dir), "--", "echo", "not", "reached")
    terminal.read_until("MNIST: ")
    terminal.type("\x03")
    assert terminal.end() == 128 + signal.SIGINT
    assert "Traceback" not in terminal.output
    assert "not reached" not in terminal.output
    assert everything_in(here) == set()
    wait_until(lambda: not runs_from(home), seconds=5)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_signals_reach_the_command(here, number):
    script = f"trap 'echo caught; exit 9' {number.value}; echo ready; while :; do sleep 0.1; done"
    process = subprocess.Popen(
        [*LOCAL, "exec", "--bare", "--", "bash", "-c", script], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    assert process.communicate(timeout=30)[0] == "caught\n"
    assert process.returncode == 9
    assert everything_in(here) == set()


def test_an_interactive_python(here):
    """What somebody does who tries it out: ``exec -- python``."""
    terminal = Terminal("exec", "--bare", "--", "python")
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


@pytest.mark.slow
def test_prepares_what_part_one_leaves_behind(here, sample_dir):
    script = (
        f"{SHOW_WORKSPACE}; from azureml.core import Environment, Model;"
        "print(Model(ws, 'sklearn_mnist').id, Environment.get(ws, 'tutorial-env', '1').name)"
    )
    for _ in range(2):  # the second time it is there already
        answer = run("exec", "--data-dir", str(sample_dir), "--", "python", "-c", script)
        assert "sklearn_mnist:1 tutorial-env" in answer.stdout, answer.stderr
    assert everything_in(here) == set()


def test_ends_with_a_clear_word_if_part_one_fails(here, tmp_path):
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    (damaged / "train-images-idx3-ubyte.gz").write_bytes(b"no gzip at all")
    answer = run("exec", "--data-dir", str(damaged), "--", "echo", "reached")
    assert answer.returncode == 1
    assert "--bare" in answer.stderr
    assert "Traceback" not in answer.stderr
    assert answer.stdout == ""


def test_open_datasets_without_a_network(here, sample_dir):
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
    if "stands in" not in answer.stderr:
        pytest.skip("there is a network, and the genuine library was left alone")
    found = Path(answer.stdout.split()[-1])
    assert found.read_bytes() == (sample_dir / "t10k-images-idx3-ubyte.gz").read_bytes()


def test_kernels_of_other_years_are_the_running_python(here):
    """Named by a notebook that is executed, which lies in a folder of its own."""
    folder = here.parent / "elsewhere"
    folder.mkdir()
    metadata = {"kernelspec": {"name": "our-course-2019", "display_name": "x"}}
    cell = f"import sys, neighbour; print(sys.executable); {SHOW_WORKSPACE}"
    cells = [nbformat.v4.new_code_cell(cell)]
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=metadata), folder / "a.ipynb")
    (folder / "neighbour.py").write_text("")
    answer = execute("jupyter", "execute", "--inplace", "../elsewhere/a.ipynb")
    assert answer.returncode == 0, answer.stderr
    (cell,) = nbformat.read(folder / "a.ipynb", as_version=4).cells
    python, workspace = "".join(output.text for output in cell.outputs).splitlines()
    assert Path(python).samefile(sys.executable)
    assert workspace == f"FOUND local {LOCAL_ID}"
    assert not (folder / ".azureml").exists()


def test_the_kernels_of_azure_are_known(here):
    listed = json.loads(execute("jupyter", "kernelspec", "list", "--json").stdout)["kernelspecs"]
    assert {"python3", "python36", "python38-azureml"} <= listed.keys()
    assert all(
        listed[name]["spec"]["argv"][0] == sys.executable for name in ("python3", "python36")
    )


def test_serve_leads_other_terminals_to_it(here, home, tmp_path):
    terminal = Terminal("serve", "--bare")
    terminal.read_until("Serving")
    exports = [line for line in terminal.output.splitlines() if line.startswith("export ")]
    (tmp_path / "exports.sh").write_text("\n".join(exports))
    # A shell that has nothing else: not even our Python on its PATH.
    answer = subprocess.run(
        ["sh", "-c", f'. ../exports.sh; python -c "{SHOW_WORKSPACE}"; echo "$PATH"'],
        env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert f"FOUND local {LOCAL_ID}" in answer.stdout, answer.stderr
    assert answer.stdout.endswith(f"{Path(sys.executable).parent}:/usr/bin:/bin\n")
    terminal.type("\x03")
    assert terminal.end() == 128 + signal.SIGINT
    assert "Traceback" not in terminal.output
    wait_until(lambda: not runs_from(home), seconds=5)
    assert everything_in(here) == set()


def test_serve_listens_where_it_is_told_to(here, home):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    terminal = Terminal("serve", "--bare", "--port", str(port))
    terminal.read_until("Serving")
    assert f"127.0.0.1:{port}/" in terminal.output
    os.kill(terminal.pid, signal.SIGTERM)
    assert terminal.end() == 128 + signal.SIGTERM


def test_serve_ends_when_the_workspace_is_stopped(here, home):
    terminal = Terminal("serve", "--bare")
    terminal.read_until("Serving")
    assert run("wipe", "--yes").returncode == 0
    terminal.read_until("stopped by somebody else")
    assert terminal.end() == 1


def test_show_and_wipe(here, home, sample_dir):
    assert "Nothing is registered" in run("show").stdout
    assert not home.exists()
    run("exec", "--data-dir", str(sample_dir), "--", "true")
    wait_until(lambda: not runs_from(home))
    shown = run("show").stdout
    assert f"Local workspace in {home}\n  not running" in shown
    assert re.search(r"Models:\n  sklearn_mnist:1 .*accuracy 0\.\d+", shown)
    assert "Environments:\n  tutorial-env:1" in shown
    assert "Services: none" in shown

    refused = run("wipe")  # nobody answers
    assert refused.returncode == 1
    assert "Nothing was deleted" in refused.stdout
    assert "Nothing was deleted" in run("wipe", text="no\n").stdout
    assert "sklearn_mnist:1" in run("show").stdout
    assert run("wipe", text="y\n").returncode == 0
    assert "Nothing is registered" in run("show").stdout
    assert not (home / "store").exists()


def test_show_names_what_runs(here, home):
    (here / "score.py").write_text("def init(): pass\ndef run(data): return 1\n")
    script = SLOW_DEPLOYMENT.partition("ws = ")[2].partition("import time")[0]
    deploy = (
        "from azureml.core import *; from azureml.core.model import *;"
        "from azureml.core.webservice import AciWebservice\nws = " + script.replace("slow", "score")
    )
    deploy += "\nservice.wait_for_deployment()\nprint('UP', flush=True)\ninput()"
    terminal = Terminal("exec", "--bare", "--", "python", "-c", deploy)
    terminal.read_until("UP")
    shown = run("show").stdout
    terminal.type("\n")
    assert terminal.end() == 0
    assert re.search(r"  running at https://127\.0\.0\.1:\d+, process \d+", shown)
    assert re.search(r"Services:\n  score  Healthy  http://127\.0\.0\.1:\d+/score", shown)
