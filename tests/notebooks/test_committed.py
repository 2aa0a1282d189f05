"""The notebooks as they are committed: executed, on the genuine data, and with the same figures."""

from __future__ import annotations

import html
import json
import re

import numpy as np
import pytest
from probed_run import printed_by, read, run_probed
from published import PUBLISHED

from mnist_deploy.tutorial import tutorial_file

NAMES = sorted(file.stem for file in tutorial_file("score.py").parent.glob("notebooks/*.ipynb"))


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


def test_shows_the_script_that_is_deployed():
    cells = read("img-classification-part2-deploy").cells
    pages = [o.data["text/html"] for cell in cells for o in cell.get("outputs", []) if "data" in o
             and "The whole of score.py" in o.data.get("text/html", "")]  # fmt: skip
    shown = [html.unescape(re.sub(r"<[^>]+>", "", page)) for page in pages]
    assert [tutorial_file("score.py").read_text().strip() in text for text in shown] == [True]


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_fresh_run_gives_the_committed_figures(name, tmp_path, home, genuine_dir):
    """The first of them trains on the 60,000 images; the others find its model."""
    run = run_probed(name, {}, tmp_path, home, "--data-dir", str(genuine_dir))
    matrix, accuracy = results(run.printed)
    committed = results(printed_by(read(name)))
    assert (matrix.tolist(), accuracy) == (committed[0].tolist(), committed[1])
    assert re.search(r"[Ll]abels that differ\D*: 0\n", run.printed)
