"""Run a notebook of this repository and read the values of variables in its kernel afterwards."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import nbformat

from mnist_deploy.tutorial import tutorial_file

# Expressions for both editions of SDK v1, by their keys in `ProbedRun.values`.
PROBE = {
    "accuracy": "float(np.mean(y_hat == y_test))",
    "differing": "int(np.sum(y_hat != y_local))",
    "sample_differing": "int(np.sum(result != y_local[sample]))",
    "images_drawn": "sum(len(ax.images) for ax in figure.axes)",
    "raw_expected": "int(y_hat[index])",
    "services": "list(ws.webservices)",
}


@dataclass(frozen=True)
class ProbedRun:
    """The results of one run of a notebook.

    Attributes
    ----------
    outputs : Path
        The working directory of the notebook.
    stdout : str
        The standard output of ``python -m mnist_deploy``.
    executed : NotebookNode
    values : dict
        The values of the probe's expressions, evaluated after the last cell.
    """

    outputs: Path
    stdout: str
    executed: nbformat.NotebookNode
    values: dict

    @property
    def printed(self) -> str:
        return printed_by(self.executed)


def read(name: str) -> nbformat.NotebookNode:
    return nbformat.read(tutorial_file(f"notebooks/{name}.ipynb"), as_version=4)


def printed_by(notebook: nbformat.NotebookNode) -> str:
    return "".join(o.get("text", "") for cell in notebook.cells for o in cell.get("outputs", []))


def run_probed(name: str, probe: dict, folder: Path, home: Path, *options: str) -> ProbedRun:
    """Run a notebook below `folder`, in the local workspace of the folder `home`."""
    notebook = read(name)
    pairs = ", ".join(f'"{key}": {expression}' for key, expression in probe.items())
    cell = f'import json\nprint("PROBE", json.dumps({{{pairs}}}))'
    notebook.cells.append(nbformat.v4.new_code_cell(cell))
    nbformat.write(notebook, folder / "probed.ipynb")
    # Another test may have set the cloud of its own workspace for SDK v2.
    inherited = {key: value for key, value in os.environ.items() if key != "AZUREML_CURRENT_CLOUD"}
    run = subprocess.run(
        [sys.executable, "-m", "mnist_deploy", "--notebook", "probed.ipynb", *options],
        cwd=folder,
        env=inherited | {"MNIST_DEPLOY_HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    executed = nbformat.read(folder / "outputs" / "probed.ipynb", as_version=4)
    values = json.loads(printed_by(executed).rpartition("PROBE")[2])
    return ProbedRun(folder / "outputs", run.stdout, executed, values)
