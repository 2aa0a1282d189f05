"""``python -m mnist_deploy``: options, output, and exit after a failure."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import console
import nbformat
import pytest

import mnist_deploy
from mnist_deploy import __main__
from mnist_deploy.__main__ import NOTEBOOK, inject, main, summary
from mnist_deploy.local.discovery import CLOUD
from mnist_deploy.tutorial import tutorial_file


def notebook(*cells: str, tags: tuple[str, ...] = ()) -> nbformat.NotebookNode:
    """A notebook of Markdown cells (those that begin with #) and code cells."""
    result = nbformat.v4.new_notebook()
    for source in cells:
        if source.startswith("#"):
            result.cells.append(nbformat.v4.new_markdown_cell(source))
        else:
            result.cells.append(nbformat.v4.new_code_cell(source, metadata={"tags": list(tags)}))
    return result


def run(tmp_path, *cells: str) -> None:
    nbformat.write(notebook(*cells), tmp_path / "mine.ipynb")
    main(["--notebook", str(tmp_path / "mine.ipynb"), "--output-dir", str(tmp_path / "out")])


def test_sections_are_printed_and_results_written(tmp_path, capfd):
    run(tmp_path, "# Title", "## Add", "print(1 + 1)", "## Multiply", "print(2 * 3)", "2 * 5")
    lines = capfd.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[:2]] == ["Add", "Multiply"]
    executed = nbformat.read(tmp_path / "out" / "mine.ipynb", as_version=4)
    assert executed.cells[2].outputs[0].text == "2\n"
    assert "Multiply" in (tmp_path / "out" / "mine.html").read_text()


def test_failing_cell_exits_with_section_and_error(tmp_path):
    with pytest.raises(SystemExit) as raised:
        run(tmp_path, "## Good", "1", "## Bad", "raise RuntimeError('the cell broke')", "print(9)")
    message = str(raised.value)
    assert "Failed in section 'Bad'" in message
    assert message.endswith("RuntimeError: the cell broke")
    assert "\x1b" not in message
    executed = nbformat.read(tmp_path / "out" / "mine.ipynb", as_version=4)
    assert executed.cells[3].outputs[0].ename == "RuntimeError"


def test_dead_kernel_exits_with_its_last_output(tmp_path):
    with pytest.raises(SystemExit, match="Failed in section 'Die'") as raised:
        run(tmp_path, "## Die", "import os; os.write(2, b'last words'); os._exit(1)")
    assert "last words" in str(raised.value)


def test_kernel_does_not_inherit_the_cloud_of_an_mlclient(tmp_path, monkeypatch):
    monkeypatch.setenv("AZUREML_CURRENT_CLOUD", f"{CLOUD}-40000")
    monkeypatch.delitem(sys.modules, "azure.ai.ml", raising=False)
    run(tmp_path, "import os; os.environ.get('AZUREML_CURRENT_CLOUD', 'none')")
    executed = nbformat.read(tmp_path / "out" / "mine.ipynb", as_version=4)
    assert executed.cells[0].outputs[0].data["text/plain"] == "'none'"


def interrupt(command: list[str], folder: Path) -> tuple[str, int]:
    """Run a command, press Ctrl-C after its first line, and return its output and status."""
    if sys.platform == "win32":
        answer = console.press(console.CTRL_C, *command, cwd=folder)
        return answer.stdout, answer.returncode
    with subprocess.Popen(
        command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None
        first = process.stdout.readline()
        process.send_signal(signal.SIGINT)
        return first + process.communicate(timeout=60)[0], process.returncode


@pytest.mark.processes
def test_ctrl_c_exits_with_130_and_writes_results(tmp_path, interruptible):
    endless = notebook("## Start", "1", "## Wait", "while True: pass")
    nbformat.write(endless, tmp_path / "endless.ipynb")
    command = [sys.executable, "-m", "mnist_deploy", "--notebook", "endless.ipynb"]
    output, status = interrupt(command, tmp_path)
    assert status == 130
    assert "Interrupted in section 'Wait'" in output
    assert "Traceback" not in output
    executed = nbformat.read(tmp_path / "outputs" / "endless.ipynb", as_version=4)
    assert executed.cells[2].source == "## Wait"


def test_invalid_notebook_or_folder_exits_with_the_reason(tmp_path):
    (tmp_path / "text.ipynb").write_text("no JSON")
    nbformat.write(notebook("1"), tmp_path / "mine.ipynb")
    for name, folder, message in [
        ("none.ipynb", "out", "none.ipynb cannot be run in .*No such file"),
        ("text.ipynb", "out", "not appear to be JSON"),
        ("mine.ipynb", "text.ipynb", "cannot be run in .*text.ipynb.*exists"),
    ]:
        with pytest.raises(SystemExit, match=message):
            main(["--notebook", str(tmp_path / name), "--output-dir", str(tmp_path / folder)])


def test_parameters_are_set_after_the_tagged_cell():
    parametrised = notebook("data_dir = 'data'", tags=("parameters",))
    inject(parametrised, {"data_dir": "other's"})
    scope: dict = {}
    for cell in parametrised.cells:
        exec(cell.source, scope)
    assert scope["data_dir"] == "other's"
    with pytest.raises(SystemExit, match="no cell tagged 'parameters'"):
        inject(notebook("1 + 1"), {"data_dir": "x"})
    with pytest.raises(SystemExit, match="no parameter data_dri; expected one of: data_dir"):
        inject(notebook("data_dir = 'data'", tags=("parameters",)), {"data_dri": "x"})


def test_options_become_parameters_of_the_notebook(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = {"subscription_id": "s", "resource_group": "g", "workspace_name": "w"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    runs = []
    monkeypatch.setattr(__main__, "run_notebook", lambda *run: runs.append(run) or notebook())
    main([])
    main(["--data-dir", "mnist", "--config", "config.json", "-p", "aks_cluster", "mine"])
    data_dir, config_file = str(tmp_path / "mnist"), str(tmp_path / "config.json")
    parameters = {"data_dir": data_dir, "config": config_file, "aks_cluster": "mine"}
    run_of = (tutorial_file(NOTEBOOK).absolute(), tmp_path / "outputs")
    assert runs == [(*run_of, {}), (*run_of, parameters)]


def test_summary_is_the_last_matrix_with_its_data():
    executed = notebook("1")
    text = (
        "MNIST: files.\n[[1 0]\n [0 1]]\nOverall accuracy: 1.0000\n"
        "[[2 1]\n [0 3]]\nOverall accuracy: 0.8333\n"
    )
    executed.cells[0].outputs = [nbformat.v4.new_output("stream", name="stdout", text=text)]
    assert summary(executed) == "[[2 1]\n [0 3]]\nOverall accuracy: 0.8333\nMNIST: files."


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, r"There is no config\.json at"), ("{}", "'subscription_id' is not filled in")],
)
def test_invalid_config_json_exits_before_a_kernel_starts(tmp_path, monkeypatch, content, message):
    monkeypatch.setattr(__main__, "run_notebook", lambda *_: pytest.fail("a kernel was started"))
    file = tmp_path / "mine.json"
    if content is not None:
        file.write_text(content)
    with pytest.raises(SystemExit, match=message) as raised:
        main(["--config", str(file)])
    assert "\n" not in str(raised.value)


def test_kernel_connection_is_encrypted_where_zeromq_has_no_unix_sockets(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(sys, "platform", "win32")
        options = __main__.transport("folder")
    monkeypatch.setattr(__main__, "transport", lambda folder: options)
    show = """
    import json
    from ipykernel.connect import get_connection_file
    with open(get_connection_file()) as file:
        connection = json.load(file)
    print(connection["transport"], len(connection["curve_publickey"]))
    """
    run(tmp_path, textwrap.dedent(show).strip())
    executed = nbformat.read(tmp_path / "out" / "mine.ipynb", as_version=4)
    assert executed.cells[0].outputs[0].text == "tcp 40\n"  # Z85 of 32 bytes


def test_version_is_printed(capsys):
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out == f"mnist-deploy {mnist_deploy.__version__}\n"


@pytest.mark.skipif(sys.platform == "win32", reason="a closed pipe is an invalid argument there")
@pytest.mark.processes
def test_closed_pipe_exits_without_a_traceback(tmp_path):
    """As ``mnist-deploy | head -1``."""
    nbformat.write(notebook("## One", "1", "## Two", "2"), tmp_path / "mine.ipynb")
    command = [sys.executable, "-m", "mnist_deploy", "--notebook", "mine.ipynb"]
    with subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        process.stdout.close()
        errors = process.stderr.read()
        assert process.wait(60) == 141
    assert "Traceback" not in errors
    assert "BrokenPipeError" not in errors
