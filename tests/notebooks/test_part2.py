"""The main notebook, run on the sample beside a service that an interrupted run left behind."""

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
EXPRESSIONS = PROBE | {"raw_answer": "answer.text"}


@pytest.fixture(scope="module")
def run(tmp_path_factory, home, sample_dir):
    """With the section on Kubernetes. This process keeps the workspace, with part one done."""
    folder = tmp_path_factory.mktemp("run")
    options = ("--data-dir", str(sample_dir), "-p", "aks_cluster", "trial")
    ws = local.connect(home)
    try:
        model = prepare_workspace(ws, sample_dir)
        config = build_inference_config(fetch_environment(ws))
        deploy_to_aci(ws, model, config, build_aci_config(), "sklearn-mnist-svc3")
        yield run_probed(NAME, EXPRESSIONS, folder, home, *options)
    finally:
        local.stop(home)


def test_service_gives_the_labels_of_the_local_model(run):
    values = run.values
    assert values["accuracy"] > 0.88
    assert values["differing"] == values["sample_differing"] == 0
    assert values["images_drawn"] == 30
    assert json.loads(values["raw_answer"]) == [values["raw_expected"]]
    assert values["services"] == []


def test_service_on_kubernetes_gives_the_labels_of_the_local_model(run):
    kubernetes = run.printed.rpartition("AKS")[2]
    assert "Labels that differ from the local ones: 0" in kubernetes


def test_broken_requests_show_status_log_and_reason(run):
    assert re.search(r"^401 .*key", run.printed, re.M)
    assert re.search(
        r"^500 .*\n +File .*score\.py.*in run\n(.*\n)+KeyError: 'data'\n", run.printed, re.M
    )
    short, hardened = re.findall(r"^0 to +\d+: accuracy (0\.\d+)$", run.printed, re.M)
    assert float(hardened) < float(short)
    assert "score_typo.py does not define run" in run.printed


def test_hardened_script_answers_the_same_requests_with_a_reason(run):
    assert re.search(r"^400 .*data", run.printed, re.M)
    assert re.search(r"^400 .*divide by 255", run.printed, re.M)


def test_standard_output_lists_the_sections_and_ends_with_the_result(run):
    headings = re.findall(r"^(\d+)\. .*\d s$", run.stdout, re.M)
    assert headings == [str(number) for number in range(1, 14)]
    tail = run.stdout.splitlines()[-13:]
    assert tail[0].startswith("[[")
    assert tail[10] == f"Overall accuracy: {run.values['accuracy']:.4f}"
    assert "sample" in tail[11]
    assert tail[12].startswith("Results: outputs/")


def test_run_leaves_notebook_page_plot_and_the_script_of_the_reader(run):
    assert (run.outputs / "conf.png").read_bytes().startswith(b"\x89PNG")
    assert "def init()" in (run.outputs / "score.py").read_text()
    shown = [o.get("data", {}) for cell in run.executed.cells for o in cell.get("outputs", [])]
    pictures = [data["image/png"].strip() for data in shown if "image/png" in data]
    assert len(pictures) == 3
    assert not [data for data in shown if "application/vnd.jupyter.widget-view+json" in data]
    page = (run.outputs / "probed.html").read_text()
    assert all(f"data:image/png;base64,{picture[:60]}" in page for picture in pictures)
    assert "choose_predict" in page


def test_service_of_an_interrupted_run_is_replaced(run):
    assert "Replacing the service 'sklearn-mnist-svc3'" in run.printed
