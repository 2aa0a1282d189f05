"""The main notebook, run for real on the sample: its values, what it leaves, what it finds."""

from __future__ import annotations

import json
import re

import pytest
from probed_run import PROBE, run_probed

from mnist_deploy import (
    build_aci_config,
    build_inference_config,
    deploy_to_aci,
    fetch_environment,
    local,
    prepare_workspace,
)

pytestmark = pytest.mark.processes

NAME = "img-classification-part2-deploy"
ASKED = PROBE | {"raw_answer": "answer.text"}


@pytest.fixture(scope="module")
def run(tmp_path_factory, home, sample_dir):
    """With the section on Kubernetes, and beside a service that a run that was cut off has left.

    This process holds the workspace, in which part one is done.
    """
    folder = tmp_path_factory.mktemp("run")
    options = ("--data-dir", str(sample_dir), "-p", "aks_cluster", "trial")
    ws = local.connect(home)
    try:
        model = prepare_workspace(ws, sample_dir)
        config = build_inference_config(fetch_environment(ws))
        deploy_to_aci(ws, model, config, build_aci_config(), "sklearn-mnist-svc3")
        yield run_probed(NAME, ASKED, folder, home, *options)
    finally:
        local.stop(home)


def test_scores_the_sample_as_the_model_does_locally(run):
    found = run.found
    assert found["accuracy"] > 0.88
    assert found["differing"] == found["sample_differing"] == 0
    assert found["images_drawn"] == 30
    assert json.loads(found["raw_answer"]) == [found["raw_expected"]]
    assert found["services"] == []


def test_does_the_same_on_kubernetes_and_says_what_to_do_where_it_breaks(run):
    kubernetes = run.printed.rpartition("AKS")[2]
    assert "Labels that differ from the local ones: 0" in kubernetes
    assert re.search(r"401.*api_key", run.printed)
    assert re.search(r"400.*divide by 255", run.printed)
    assert "score_typo.py does not define run" in run.printed


def test_shows_its_sections_and_ends_with_the_result(run):
    headings = re.findall(r"^(\d+)\. .*\d s$", run.stdout, re.M)
    assert headings == [str(number) for number in range(1, 13)]
    tail = run.stdout.splitlines()[-13:]
    assert tail[0].startswith("[[")
    assert tail[10] == f"Overall accuracy: {run.found['accuracy']:.4f}"
    assert "sample" in tail[11]
    assert tail[12].startswith("Results: outputs/")


def test_leaves_notebook_page_and_plot(run):
    assert (run.outputs / "conf.png").read_bytes().startswith(b"\x89PNG")
    shown = [o.get("data", {}) for cell in run.executed.cells for o in cell.get("outputs", [])]
    pictures = [data["image/png"].strip() for data in shown if "image/png" in data]
    assert len(pictures) == 3
    assert not [data for data in shown if "application/vnd.jupyter.widget-view+json" in data]
    page = (run.outputs / "probed.html").read_text()
    assert all(f"data:image/png;base64,{picture[:60]}" in page for picture in pictures)
    assert "<details><summary>The whole of score.py" in page


def test_replaces_the_service_of_a_run_that_was_cut_off(run):
    assert "Replacing the service 'sklearn-mnist-svc3'" in run.printed
