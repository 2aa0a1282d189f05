"""The notebook, run for real on the sample: its values, a second run, and what is committed."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import numpy as np
import pytest

from mnist_deploy import local
from mnist_deploy.tutorial import tutorial_file

NOTEBOOK = tutorial_file("notebooks/img-classification-part2-deploy.ipynb")
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
# What a reader cannot see in the outputs is asked of the kernel itself, in a last cell.
PROBE = """
from azureml.core.webservice import Webservice
print("PROBE", json.dumps({
    "accuracy": float(np.mean(y_hat == y_test)),
    "differing": int(np.sum(y_hat != y_local)),
    "images_drawn": sum(len(ax.images) for ax in figure.axes),
    "raw_answer": answer.text,
    "raw_status": answer.status_code,
    "raw_expected": int(y_hat[index]),
    "asks_for_key": requests.post(service.scoring_uri, data=body).status_code
    if Webservice.list(ws) else None,
    "services": [service.name for service in Webservice.list(ws)],
}))
"""


def run_notebook(folder: Path, home: Path, *options: str) -> tuple[str, dict]:
    """Run the notebook, with the probe behind its last cell; return what it printed and found."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    notebook.cells.append(nbformat.v4.new_code_cell(PROBE))
    probed = folder / "probed.ipynb"
    nbformat.write(notebook, probed)
    run = subprocess.run(
        [sys.executable, "-m", "mnist_deploy", "--notebook", str(probed), *options],
        cwd=folder,
        env={**os.environ, "MNIST_DEPLOY_HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    executed = nbformat.read(folder / "outputs" / "probed.ipynb", as_version=4)
    (found,) = [
        json.loads(output.text.partition("PROBE")[2])
        for output in executed.cells[-1].outputs
        if "PROBE" in output.get("text", "")
    ]
    return run.stdout, found


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def first_run(tmp_path_factory, home, sample_dir):
    folder = tmp_path_factory.mktemp("first run")
    stdout, found = run_notebook(folder, home, "--data-dir", str(sample_dir))
    return folder, stdout, found


def test_scores_the_sample_as_the_model_does_locally(first_run):
    _, _, found = first_run
    assert found["accuracy"] > 0.88
    assert found["differing"] == 0


def test_draws_thirty_images(first_run):
    assert first_run[2]["images_drawn"] == 30


def test_sends_a_raw_request(first_run):
    found = first_run[2]
    assert found["raw_status"] == 200
    assert json.loads(found["raw_answer"]) == [found["raw_expected"]]


def test_deletes_the_service(first_run):
    assert first_run[2]["services"] == []


def test_shows_its_sections_and_ends_with_the_result(first_run):
    _, stdout, found = first_run
    headings = re.findall(r"^(\d+)\. .*\d s$", stdout, re.M)
    assert headings == [str(number) for number in range(1, 11)]
    tail = stdout.splitlines()[-13:]
    assert tail[0].startswith("[[")
    assert tail[10] == f"Overall accuracy: {found['accuracy']:.4f}"
    assert "sample" in tail[11]
    assert tail[12].startswith("Results: outputs/")


def test_leaves_notebook_page_and_plot(first_run):
    outputs = first_run[0] / "outputs"
    assert (outputs / "conf.png").read_bytes().startswith(b"\x89PNG")
    executed = nbformat.read(outputs / "probed.ipynb", as_version=4)
    shown = [
        output.get("data", {}) for cell in executed.cells for output in cell.get("outputs", [])
    ]
    pictures = [data["image/png"].strip() for data in shown if "image/png" in data]
    assert len(pictures) == 2
    assert not [data for data in shown if "application/vnd.jupyter.widget-view+json" in data]
    page = (outputs / "probed.html").read_text()
    assert all(f"data:image/png;base64,{picture[:60]}" in page for picture in pictures)


def test_replaces_the_service_of_a_run_that_was_cut_off(first_run, home, sample_dir, tmp_path):
    """Another process holds the workspace, and in it a service of the same name."""
    from mnist_deploy import (
        build_aci_config,
        build_inference_config,
        deploy_to_aci,
        fetch_environment,
        fetch_model,
    )

    ws = local.connect(home)
    try:
        config = build_inference_config(fetch_environment(ws))
        deploy_to_aci(ws, fetch_model(ws), config, build_aci_config(), "sklearn-mnist-svc3")
        _, found = run_notebook(tmp_path, home, "--data-dir", str(sample_dir))
    finally:
        local.stop(home)
    assert found["differing"] == 0
    assert found["services"] == []
    executed = (tmp_path / "outputs" / "probed.ipynb").read_text()
    assert "Replacing the service 'sklearn-mnist-svc3'" in executed


@pytest.mark.slow
def test_reproduces_the_published_figures(tmp_path, genuine_dir):
    stdout, found = run_notebook(tmp_path, tmp_path / "home", "--data-dir", str(genuine_dir))
    assert found["accuracy"] == pytest.approx(0.9204, abs=0.0003)
    assert found["differing"] == 0
    rows = re.findall(r"^ *\[\[?([\d ]+)\]", stdout, re.M)
    matrix = np.array([row.split() for row in rows[-10:]], dtype=int)
    assert np.abs(matrix - PUBLISHED).sum() <= 8


@pytest.mark.parametrize(
    "path", sorted(NOTEBOOK.parent.glob("*.ipynb")), ids=lambda path: path.stem
)
def test_is_committed_executed(path):
    """With its pictures, on the genuine data, without an error or a machine's path."""
    notebook = nbformat.read(path, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.execution_count for cell in code)
    outputs = [output for cell in code for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error"]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    printed = json.dumps(outputs)
    assert "Overall accuracy: 0.9204" in printed or "0.9204" in printed
    assert not re.search(r"/(home|root|Users|tmp|work)/\w", printed)
