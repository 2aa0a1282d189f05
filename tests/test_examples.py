"""The examples that the README shows, run as its reader would run them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest_plugins = ["mnist_deploy.testing"]

pytestmark = pytest.mark.processes

EXAMPLES = Path(__file__).parent / "examples"


@pytest.fixture
def run_example(tmp_path, mnist_sample):
    """Run a script in an empty folder, but for its own files and a few hundred digits."""
    for name in ("tutorial.py", "wine.py", "score_wine.py"):
        shutil.copy(EXAMPLES / name, tmp_path)
    shutil.copytree(mnist_sample.data_dir, tmp_path / "data")

    def run(name: str) -> str:
        home = str(tmp_path / "home")
        environment = {**os.environ, "MNIST_DEPLOY_HOME": home, "MPLBACKEND": "agg"}
        run = subprocess.run(
            [sys.executable, "-W", "ignore", name],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert run.returncode == 0, run.stderr
        return run.stdout

    return run


def test_tutorial(run_example, tmp_path):
    output = run_example("tutorial.py")
    accuracy = float(output.rpartition("accuracy of the deployed model: ")[2])
    assert accuracy > 0.7  # trained on 300 digits
    assert (tmp_path / "predictions.png").stat().st_size > 5_000


def test_wine(run_example):
    output = run_example("wine.py")
    assert "accuracy of the deployed model: 1.0000" in output
    assert output.endswith("labels that differ from the local ones: 0\n")
