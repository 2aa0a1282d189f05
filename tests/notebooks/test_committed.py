"""The notebooks as they are committed: executed, on the genuine data, and with the same figures."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from probed_run import printed_by, read

from mnist_deploy.tutorial import tutorial_file

NAMES = sorted(file.stem for file in tutorial_file("score.py").parent.glob("notebooks/*.ipynb"))
PUBLISHED = [
    [960, 0, 1, 2, 1, 5, 6, 3, 1, 1],
    [0, 1112, 3, 1, 0, 1, 5, 1, 12, 0],
    [9, 8, 920, 20, 10, 4, 10, 11, 37, 3],
    [4, 0, 17, 921, 2, 21, 4, 12, 20, 9],
    [1, 2, 5, 3, 915, 0, 10, 2, 6, 38],
    [10, 2, 0, 41, 10, 770, 17, 7, 28, 7],
    [9, 3, 7, 2, 6, 20, 907, 1, 3, 0],
    [2, 7, 22, 5, 8, 1, 1, 950, 5, 27],
    [10, 15, 5, 21, 15, 27, 7, 11, 851, 12],
    [7, 8, 2, 13, 32, 13, 0, 24, 12, 898],
]


def results(text: str) -> tuple[np.ndarray, str]:
    """The last confusion matrix that was printed, and the accuracy."""
    rows = re.findall(r"^ *\[\[? *(\d[\d ]+)\]", text, re.M)[-10:]
    return np.array([row.split() for row in rows], int), re.findall(r"ccuracy: (\S+)", text)[-1]


@pytest.mark.parametrize("name", NAMES)
def test_is_committed_executed(name):
    """With its pictures, without an error or a machine's path."""
    code = [cell for cell in read(name).cells if cell.cell_type == "code"]
    assert all(cell.execution_count for cell in code)
    outputs = [output for cell in code for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error"]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert not re.search(r"/(home|root|Users|tmp|work)/\w", json.dumps(outputs))
    assert any("parameters" in cell.metadata.get("tags", []) for cell in code)


@pytest.mark.parametrize("name", NAMES)
def test_shows_the_published_figures(name):
    matrix, accuracy = results(printed_by(read(name)))
    assert accuracy == "0.9204"
    assert np.abs(matrix - PUBLISHED).sum() <= 8


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_fresh_run_gives_the_committed_figures(name, tmp_path, home, genuine_dir):
    """The first of them trains on the 60,000 images; the others find its model."""
    from probed_run import run_probed

    run = run_probed(name, "{}", tmp_path, home, "--data-dir", str(genuine_dir))
    matrix, accuracy = results(run.printed)
    committed = results(printed_by(read(name)))
    assert (matrix.tolist(), accuracy) == (committed[0].tolist(), committed[1])
    assert re.search(r"[Ll]abels that differ\D*: 0\n", run.printed)
