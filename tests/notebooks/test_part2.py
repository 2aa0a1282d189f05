"""The main notebook, run for real on the sample: its values, what it leaves, a second run."""

from __future__ import annotations

import json
import re

import pytest
from probed_run import run_probed

from mnist_deploy import local

pytestmark = pytest.mark.processes

NAME = "img-classification-part2-deploy"
PROBE = {"raw_answer": "answer.text"}


@pytest.fixture(scope="module")
def first_run(tmp_path_factory, home, sample_dir):
    """With the section on Kubernetes."""
    folder = tmp_path_factory.mktemp("first run")
    options = ("--data-dir", str(sample_dir), "-p", "aks_cluster", "trial")
    return run_probed(NAME, PROBE, folder, home, *options)


def test_scores_the_sample_as_the_model_does_locally(first_run):
    found = first_run.found
    assert found["accuracy"] > 0.88
    assert found["differing"] == found["sample_differing"] == 0
    assert found["images_drawn"] == 30
    assert json.loads(found["raw_answer"]) == [found["raw_expected"]]
    assert found["services"] == []


def test_does_the_same_on_kubernetes_and_says_what_to_do_where_it_breaks(first_run):
    kubernetes = first_run.printed.rpartition("AKS")[2]
    assert "Labels that differ from the local ones: 0" in kubernetes
    assert re.search(r"401.*api_key", first_run.printed)
    assert re.search(r"400.*divide by 255", first_run.printed)
    assert "score_typo.py does not define run" in first_run.printed


def test_shows_its_sections_and_ends_with_the_result(first_run):
    headings = re.findall(r"^(\d+)\. .*\d s$", first_run.stdout, re.M)
    assert headings == [str(number) for number in range(1, 13)]
    tail = first_run.stdout.splitlines()[-13:]
    assert tail[0].startswith("[[")
    assert tail[10] == f"Overall accuracy: {first_run.found['accuracy']:.4f}"
    assert "sample" in tail[11]
    assert tail[12].startswith("Results: outputs/")


def test_leaves_notebook_page_and_plot(first_run):
    assert (first_run.outputs / "conf.png").read_bytes().startswith(b"\x89PNG")
    shown = [
        o.get("data", {}) for cell in first_run.executed.cells for o in cell.get("outputs", [])
    ]
    pictures = [data["image/png"].strip() for data in shown if "image/png" in data]
    assert len(pictures) == 3
    assert not [data for data in shown if "application/vnd.jupyter.widget-view+json" in data]
    page = (first_run.outputs / "probed.html").read_text()
    assert all(f"data:image/png;base64,{picture[:60]}" in page for picture in pictures)
    assert "<details><summary>The whole of score.py" in page


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
        run = run_probed(NAME, PROBE, tmp_path, home, "--data-dir", str(sample_dir))
    finally:
        local.stop(home)
    assert run.found["differing"] == 0
    assert run.found["services"] == []
    assert "Replacing the service 'sklearn-mnist-svc3'" in run.printed
