"""Kernels: names in notebooks, and the kernel specs that are written for them."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from jupyter_client.kernelspec import KernelSpecManager

from mnist_deploy.local.cli.kernels import find_notebooks, kernel_of, write_kernels


def write(path: Path, metadata: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"cells": [], "metadata": metadata, "nbformat": 4}))
    return path


@pytest.mark.parametrize(
    ("metadata", "kernel"),
    [
        ({"kernelspec": {"name": "python36", "language": "python"}}, "python36"),
        ({"kernelspec": {"name": "a"}, "language_info": {"name": "python"}}, "a"),
        ({"kernelspec": {"name": "a"}}, "a"),
        ({"kernelspec": {"name": "ir", "language": "R"}}, None),
        ({"kernelspec": {"name": "b"}, "language_info": {"name": "julia"}}, None),
        ({"kernelspec": {"name": "../../evil"}}, None),
        ({"kernelspec": {"name": 7}}, None),
        ({"kernelspec": "python3"}, None),
        ({}, None),
        (None, None),
    ],
)
def test_kernel_of_a_python_notebook_is_read(tmp_path, metadata, kernel):
    notebook = write(tmp_path / "a.ipynb", metadata)
    assert kernel_of(notebook) == kernel
    notebook.write_bytes(b"\xff{")
    assert kernel_of(notebook) is kernel_of(tmp_path / "none.ipynb") is None


def test_notebooks_in_hidden_or_deep_folders_are_skipped(tmp_path):
    for name in ("a", "b/c", "b/d/e/f", ".hidden/g", "b/.ipynb_checkpoints/c", "1/2/3/4/h"):
        write(tmp_path / f"{name}.ipynb", {})
    found = {path.relative_to(tmp_path).as_posix() for path in find_notebooks(tmp_path)}
    assert found == {"a.ipynb", "b/c.ipynb", "b/d/e/f.ipynb"}


def test_jupyter_accepts_the_written_kernels(tmp_path):
    write_kernels(tmp_path, {"python36", "python3"})
    manager = KernelSpecManager(kernel_dirs=[str(tmp_path / "kernels")])
    for name in ("python36", "python3"):
        assert manager.get_kernel_spec(name).argv[0] == sys.executable
