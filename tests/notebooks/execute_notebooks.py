"""Execute the notebooks of this repository on the genuine MNIST and store them with their outputs.

    python tests/notebooks/execute_notebooks.py [--data-dir ../shared/mnist] [NAME ...]

Each notebook runs in a new folder, with a new home directory and so with an empty local workspace.
Its outputs replace those in ``notebooks/`` only if every cell succeeded. The digest of the cells is
stored in the metadata, so that a test can report a notebook that was edited after its execution.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import matplotlib
import nbformat

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
# Variables that would lead the run to another workspace than the one of its own home directory.
OTHER_WORKSPACES = ("MNIST_DEPLOY_HOME", "XDG_DATA_HOME", "AZUREML_CURRENT_CLOUD")


def digest_of_cells(notebook: nbformat.NotebookNode) -> str:
    cells = "\0".join(f"{cell.cell_type}\0{cell.source}" for cell in notebook.cells)
    return hashlib.sha256(cells.encode()).hexdigest()


def execute(notebook_file: Path, data_dir: Path, folder: Path) -> None:
    """Execute a notebook with `folder` as home directory, and replace the file in case of success.

    Copies of the data are in the default ``data_dir`` of the notebook, so that no cell is added.
    """
    outputs = folder / "outputs"
    (outputs / "data").mkdir(parents=True)
    for file in data_dir.glob("*.gz"):
        shutil.copyfile(file, outputs / "data" / file.name)
    inherited = {name: os.environ[name] for name in os.environ if name not in OTHER_WORKSPACES}
    subprocess.run(
        [sys.executable, "-m", "mnist_deploy", "--notebook", notebook_file],
        cwd=folder,
        env={**inherited, "HOME": str(folder), "MPLCONFIGDIR": matplotlib.get_cachedir()},
        check=True,
    )
    executed = (outputs / notebook_file.name).read_text(encoding="utf-8")
    notebook = nbformat.reads(executed.replace(str(folder), "~"), as_version=4)
    notebook.metadata["executed_cells"] = digest_of_cells(notebook)
    nbformat.write(notebook, notebook_file)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help="part of a file name; default: all"
    )
    parser.add_argument("--data-dir", type=Path, default=ROOT.parent / "shared" / "mnist")
    options = parser.parse_args()
    for notebook_file in NOTEBOOKS:
        if not options.names or any(name in notebook_file.name for name in options.names):
            print(f"\n{notebook_file.name}\n", flush=True)
            with tempfile.TemporaryDirectory() as folder:
                execute(notebook_file, options.data_dir.resolve(strict=True), Path(folder))


if __name__ == "__main__":
    main()
