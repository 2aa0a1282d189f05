"""Running a notebook for real, and asking its kernel in the end what no output shows."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import nbformat

from mnist_deploy.tutorial import tutorial_file

# What both editions of SDK v1 are asked: names in `ProbedRun.found`, and what they stand for.
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
    """What a run of a notebook left behind.

    Attributes
    ----------
    outputs : Path
        The folder that it ran in.
    stdout : str
        What ``python -m mnist_deploy`` printed.
    executed : NotebookNode
    found : dict
        The values of the probe's expressions, evaluated behind the last cell.
    """

    outputs: Path
    stdout: str
    executed: nbformat.NotebookNode
    found: dict

    @property
    def printed(self) -> str:
        return printed_by(self.executed)


def read(name: str) -> nbformat.NotebookNode:
    return nbformat.read(tutorial_file(f"notebooks/{name}.ipynb"), as_version=4)


def printed_by(notebook: nbformat.NotebookNode) -> str:
    return "".join(o.get("text", "") for cell in notebook.cells for o in cell.get("outputs", []))


def run_probed(name: str, probe: dict, folder: Path, home: Path, *options: str) -> ProbedRun:
    """Run one of the tutorial's notebooks in a folder, on the workspace under `home`."""
    notebook = read(name)
    asked = ", ".join(f'"{what}": {expression}' for what, expression in probe.items())
    cell = f'import json\nprint("PROBE", json.dumps({{{asked}}}))'
    notebook.cells.append(nbformat.v4.new_code_cell(cell))
    nbformat.write(notebook, folder / "probed.ipynb")
    # Without the cloud that a client of SDK v2 in another test has named.
    here = {name: value for name, value in os.environ.items() if name != "AZUREML_CURRENT_CLOUD"}
    run = subprocess.run(
        [sys.executable, "-m", "mnist_deploy", "--notebook", "probed.ipynb", *options],
        cwd=folder,
        env=here | {"MNIST_DEPLOY_HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    executed = nbformat.read(folder / "outputs" / "probed.ipynb", as_version=4)
    found = json.loads(printed_by(executed).rpartition("PROBE")[2])
    return ProbedRun(folder / "outputs", run.stdout, executed, found)
