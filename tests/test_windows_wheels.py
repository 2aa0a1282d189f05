"""Everything that the package requires has wheels for Windows, as the package index lists them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import mnist_deploy

PYPROJECT = Path(mnist_deploy.__file__).parents[1] / "pyproject.toml"


@pytest.mark.nightly
@pytest.mark.parametrize("extra", [(), ("--all-extras",)], ids=["package", "with-extras"])
@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13", "3.14"])
def test_requirements_resolve_to_wheels_on_windows(python, extra, tmp_path):
    # azureml-opendatasets, before Python 3.12, requires pyspark, which is published as pure Python
    # source on every system.
    excluded = tmp_path / "overrides.txt"
    excluded.write_text("pyspark; sys_platform == 'none'\nfusepy; sys_platform == 'none'\n")
    result = subprocess.run(
        [
            sys.executable, "-m", "uv", "pip", "compile", "--quiet", "--no-header", *extra,
            "--python-platform", "windows", "--python-version", python, "--only-binary", ":all:",
            "--overrides", str(excluded), str(PYPROJECT),
        ],
        cwd=tmp_path, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert "azureml-inference-server-http==" in result.stdout
    assert "httptools==" in result.stdout
