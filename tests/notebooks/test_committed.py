"""The committed notebooks: executed on the genuine data, after their last change."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from execute_notebooks import digest_of_cells
from probed_run import printed_by, read, run_probed
from published import PUBLISHED

from mnist_deploy.tutorial import tutorial_file

NAMES = sorted(file.stem for file in tutorial_file("score.py").parent.glob("notebooks/*.ipynb"))
PART_TWO = [name for name in NAMES if "part2" in name]
WITH_HARDENED_SCRIPT = ["img-classification-part2-deploy", "img-classification-part2-deploy-2026"]


def results(text: str) -> tuple[np.ndarray, str]:
    """The last confusion matrix that was printed, and the accuracy."""
    rows = re.findall(r"^ *\[\[? *(\d[\d ]+)\]", text, re.M)[-10:]
    return np.array([row.split() for row in rows], int), re.findall(r"ccuracy: (\S+)", text)[-1]


@pytest.mark.parametrize("name", NAMES)
def test_outputs_belong_to_the_committed_cells(name):
    """A failure here means: run ``python tests/notebooks/execute_notebooks.py`` and commit."""
    notebook = read(name)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert notebook.metadata["executed_cells"] == digest_of_cells(notebook)


@pytest.mark.parametrize("name", NAMES)
def test_outputs_have_plots_and_no_error_warning_or_machine_path(name):
    code = [cell for cell in read(name).cells if cell.cell_type == "code"]
    outputs = [output for cell in code for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error"]
    assert not [output for output in outputs if output.get("name") == "stderr"]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert not re.search(r"/(home|root|Users|tmp|work)/\w", json.dumps(outputs))


@pytest.mark.parametrize("name", NAMES)
def test_notebook_has_a_cell_of_parameters(name):
    cells = read(name).cells
    assert sum("parameters" in cell.metadata.get("tags", []) for cell in cells) == 1


@pytest.mark.parametrize("name", PART_TWO)
def test_outputs_show_the_published_figures(name):
    matrix, accuracy = results(printed_by(read(name)))
    assert accuracy == "0.9204"
    assert np.abs(matrix - PUBLISHED).sum() == 4


@pytest.mark.parametrize("name", WITH_HARDENED_SCRIPT)
def test_hardened_script_is_shown_whole(name):
    outputs = [output for cell in read(name).cells for output in cell.get("outputs", [])]
    [shown] = [o.data["text/markdown"] for o in outputs if "text/markdown" in o.get("data", {})]
    assert shown == f"```python\n{tutorial_file('score.py').read_text()}```"


@pytest.mark.slow
@pytest.mark.parametrize("name", PART_TWO)
def test_new_run_on_the_genuine_data_prints_the_committed_figures(
    name, tmp_path, home, genuine_dir
):
    """The first run trains on the 60,000 images; the other runs use its model."""
    run = run_probed(name, {}, tmp_path, home, "--data-dir", str(genuine_dir))
    matrix, accuracy = results(run.printed)
    committed = results(printed_by(read(name)))
    assert (matrix.tolist(), accuracy) == (committed[0].tolist(), committed[1])
    assert re.search(r"[Ll]abels that differ\D*: 0\n", run.printed)


@pytest.mark.parametrize("name", PART_TWO)
def test_part_two_links_to_part_one(name):
    text = "\n".join(cell.source for cell in read(name).cells if cell.cell_type == "markdown")
    [target, *_] = re.findall(r"\]\((img-classification-part1\S*\.ipynb)\)", text)
    assert tutorial_file("score.py").parent.joinpath("notebooks", target).is_file()
