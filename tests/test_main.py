"""``python -m mnist_deploy``: its options, and how it ends when a cell fails."""

from __future__ import annotations

import signal
import subprocess
import sys

import nbformat
import pytest

from mnist_deploy import __main__
from mnist_deploy.__main__ import NOTEBOOK, inject, main, summary
from mnist_deploy.tutorial import tutorial_file


def notebook(*cells: str, tags: tuple[str, ...] = ()) -> nbformat.NotebookNode:
    """A notebook of Markdown cells (those that begin with #) and code cells."""
    made = nbformat.v4.new_notebook()
    for source in cells:
        if source.startswith("#"):
            made.cells.append(nbformat.v4.new_markdown_cell(source))
        else:
            made.cells.append(nbformat.v4.new_code_cell(source, metadata={"tags": list(tags)}))
    return made


def run(tmp_path, *cells: str) -> None:
    nbformat.write(notebook(*cells), tmp_path / "mine.ipynb")
    main(["--notebook", str(tmp_path / "mine.ipynb"), "--output-dir", str(tmp_path / "out")])


def test_shows_sections_and_leaves_results(tmp_path, capfd):
    run(tmp_path, "# Title", "## Add", "print(1 + 1)", "## Multiply", "print(2 * 3)", "2 * 5")
    lines = capfd.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[:2]] == ["Add", "Multiply"]
    executed = nbformat.read(tmp_path / "out" / "mine.ipynb", as_version=4)
    assert executed.cells[2].outputs[0].text == "2\n"
    assert "Multiply" in (tmp_path / "out" / "mine.html").read_text()


def test_a_failing_cell_ends_it_with_its_section_and_error(tmp_path):
    with pytest.raises(SystemExit) as ended:
        run(tmp_path, "## Good", "1", "## Bad", "raise RuntimeError('the cell broke')", "print(9)")
    message = str(ended.value)
    assert "Failed in section 'Bad'" in message
    assert message.endswith("RuntimeError: the cell broke")
    assert "\x1b" not in message
    executed = nbformat.read(tmp_path / "out" / "mine.ipynb", as_version=4)
    assert executed.cells[3].outputs[0].ename == "RuntimeError"


def test_a_dying_kernel_is_told(tmp_path):
    with pytest.raises(SystemExit, match="Failed in section 'Die'") as ended:
        run(tmp_path, "## Die", "import os; os.write(2, b'last words'); os._exit(1)")
    assert "last words" in str(ended.value)


@pytest.mark.processes
def test_ctrl_c_ends_it_and_its_kernel(tmp_path, interruptible):
    endless = notebook("## Wait", "import os; print(os.getpid())", "while True: pass")
    nbformat.write(endless, tmp_path / "endless.ipynb")
    command = [sys.executable, "-m", "mnist_deploy", "--notebook", "endless.ipynb"]
    with subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        while (shown := process.stdout.read(1)) != "W":
            assert shown, process.communicate()
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Interrupted in section 'Wait'" in errors
    assert "Traceback" not in errors
    executed = nbformat.read(tmp_path / "outputs" / "endless.ipynb", as_version=4)
    assert executed.cells[0].source == "## Wait"


def test_a_notebook_that_is_missing_or_none_and_a_folder_that_is_a_file_are_told(tmp_path):
    (tmp_path / "text.ipynb").write_text("no JSON")
    nbformat.write(notebook("1"), tmp_path / "mine.ipynb")
    for name, folder, told in [
        ("none.ipynb", "out", "none.ipynb cannot be run in .*No such file"),
        ("text.ipynb", "out", "not appear to be JSON"),
        ("mine.ipynb", "text.ipynb", "cannot be run in .*text.ipynb: .*File exists"),
    ]:
        with pytest.raises(SystemExit, match=told):
            main(["--notebook", str(tmp_path / name), "--output-dir", str(tmp_path / folder)])


def test_parameters_are_set_after_the_tagged_cell_which_must_be_there():
    parametrised = notebook("data_dir = 'data'", tags=("parameters",))
    inject(parametrised, {"data_dir": "else'where"})
    scope: dict = {}
    for cell in parametrised.cells:
        exec(cell.source, scope)
    assert scope["data_dir"] == "else'where"
    with pytest.raises(SystemExit, match="no cell tagged 'parameters'"):
        inject(notebook("1 + 1"), {"data_dir": "x"})
    with pytest.raises(SystemExit, match=r"no parameter data_dri; it has \['data_dir'\]"):
        inject(notebook("data_dir = 'data'", tags=("parameters",)), {"data_dri": "x"})


def test_options_become_parameters_of_the_tutorials_notebook(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MNIST_DEPLOY_UNATTENDED", "")
    runs = []
    monkeypatch.setattr(__main__, "run_notebook", lambda *run: runs.append(run) or notebook())
    main([])
    main(["--data-dir", "mnist", "--config", "config.json", "-p", "aks_cluster", "mine"])
    here, theirs = str(tmp_path / "mnist"), str(tmp_path / "config.json")
    parameters = {"data_dir": here, "config": theirs, "aks_cluster": "mine"}
    where = (tutorial_file(NOTEBOOK).absolute(), tmp_path / "outputs")
    assert runs == [(*where, {}), (*where, parameters)]


def test_summary_is_the_last_matrix_with_its_data():
    executed = notebook("1")
    text = (
        "MNIST: files.\n[[1 0]\n [0 1]]\nOverall accuracy: 1.0000\n"
        "[[2 1]\n [0 3]]\nOverall accuracy: 0.8333\n"
    )
    executed.cells[0].outputs = [nbformat.v4.new_output("stream", name="stdout", text=text)]
    assert summary(executed) == "[[2 1]\n [0 3]]\nOverall accuracy: 0.8333\nMNIST: files."
