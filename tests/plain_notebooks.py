"""Write and run notebooks without any code of this project, through ``exec``."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import dedent

import nbformat


def write_notebook(
    path: Path, cells: Sequence[str], kernel: str, files: Mapping[str, str] | None = None
) -> None:
    """Write a notebook that names a kernel, and `files` into its folder."""
    metadata = {"kernelspec": {"name": kernel, "display_name": kernel, "language": "python"}}
    path.parent.mkdir(parents=True, exist_ok=True)
    sources = [dedent(cell).strip() for cell in cells]
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(source) for source in sources], metadata=metadata
    )
    nbformat.write(notebook, path)
    for name, content in (files or {}).items():
        (path.parent / name).write_text(content)


def run_notebook(path: Path, home: Path, *options: str) -> tuple[str, dict]:
    """Execute a notebook in place, with the parent of its folder as working directory of ``exec``.

    Returns
    -------
    str
        The text of all outputs.
    dict
        The JSON that a cell printed after the word PROBE.
    """
    command = ["jupyter", "execute", "--inplace", str(path.relative_to(path.parents[1]))]
    run = subprocess.run(
        [sys.executable, "-m", "mnist_deploy.local", "exec", *options, "--", *command],
        cwd=path.parents[1],
        env={**os.environ, "MNIST_DEPLOY_HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=900,  # on a busy machine
        check=False,
    )
    assert run.returncode == 0, run.stderr
    cells = nbformat.read(path, as_version=4).cells
    printed = "".join(o.get("text", "") for cell in cells for o in cell.get("outputs", []))
    return printed, json.loads(printed.rpartition("PROBE")[2].splitlines()[0])
