"""The example scripts, run unchanged on a local workspace."""

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
    """A function that runs a script, in a folder with the scripts and a few hundred digits."""
    for file in EXAMPLES.glob("*.py"):
        shutil.copy(file, tmp_path)
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


def test_table_with_named_columns(run_example):
    """In another order of the columns, for which an array would give other labels."""
    output = run_example("table.py")
    accuracy = float(output.rpartition("accuracy of the deployed model: ")[2].split()[0])
    assert accuracy > 0.95
    assert output.endswith("labels that differ from the local ones: 0\n")


def test_text_classifier(run_example):
    assert run_example("text.py").endswith("['good' 'bad']\n")


def test_probabilities(run_example):
    output = run_example("probabilities.py")
    assert "shape: (38, 3)\nequal to the local ones: True\n" in output
    assert float(output.rpartition("accuracy: ")[2]) > 0.9


def test_regression_with_missing_values(run_example):
    output = run_example("regression.py")
    assert "equal to the local ones: True\n" in output
    assert float(output.rpartition("mean absolute error: ")[2]) < 60


def test_onnx_model_of_images(run_example):
    for package in ("onnx", "onnxruntime"):
        pytest.importorskip(package, reason=f"{package} is not installed: pip install {package}")
    output = run_example("onnx_images.py")
    assert float(output.rpartition("accuracy of the deployed model: ")[2]) > 0.9
