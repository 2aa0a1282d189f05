"""The notebook of the 2019 edition, run for real on the sample: its order, its values, a rerun."""

from __future__ import annotations

import json
import platform
import re
from importlib.metadata import version

import pytest
import yaml
from probed_run import PROBE, read, run_probed

from mnist_deploy import local

pytestmark = pytest.mark.processes

NAME = "img-classification-part2-deploy-2019"
ASKED = PROBE | {
    "raw_status": "resp.status_code",
    "raw_answer": "resp.text",
    "image": "service.image_id",
}


@pytest.fixture(scope="module")
def first_run(tmp_path_factory, home, sample_dir):
    folder = tmp_path_factory.mktemp("first run")
    return run_probed(NAME, ASKED, folder, home, "--data-dir", str(sample_dir))


def test_a_service_from_an_image_agrees_with_the_model_that_was_tested_first(first_run):
    found = first_run.found
    assert found["accuracy"] > 0.88
    assert re.fullmatch(r"sklearn-mnist-svc:\d+", found["image"])
    assert "Image creation operation finished" in first_run.printed
    answer = json.loads(json.loads(found["raw_answer"]))  # a JSON string of a list
    assert found["differing"] == found["sample_differing"] == 0
    assert (found["images_drawn"], found["services"]) == (30, [])
    assert (found["raw_status"], answer) == (200, [found["raw_expected"]])


def test_environment_names_this_python_and_the_models_scikit_learn(first_run):
    content = yaml.safe_load((first_run.outputs / "myenv.yml").read_text())
    assert f"python={'.'.join(platform.python_version_tuple()[:2])}" in content["dependencies"]
    (pip,) = [entry["pip"] for entry in content["dependencies"] if isinstance(entry, dict)]
    assert f"scikit-learn=={version('scikit-learn')}" in pip
    assert "environment: " not in first_run.printed  # so nothing differs from what runs


def test_leaves_that_editions_files(first_run, sample_dir):
    outputs = first_run.outputs
    assert (outputs / "conf.png").read_bytes().startswith(b"\x89PNG")
    assert "Model.get_model_path" in (outputs / "score.py").read_text()
    for ours, theirs in (
        ("t10k-images-idx3-ubyte", "images"),
        ("t10k-labels-idx1-ubyte", "labels"),
    ):
        written = outputs / "data" / f"test-{theirs}.gz"
        assert written.read_bytes() == (sample_dir / f"{ours}.gz").read_bytes()


def test_follows_the_order_of_its_edition():
    """Tested locally first; then script, environment, container, image, samples, raw request."""
    source = "\n".join(cell.source for cell in read(NAME).cells)
    steps = (
        "azureml.core.VERSION",
        "ws = connect_workspace",
        "download_model(model",
        'os.stat("./sklearn_mnist_model.pkl")',
        'load_data("./data/test-images.gz"',
        "joblib.load(",
        "conf_mx = confusion_matrix(",
        "plot_confusion_matrix(conf_mx",
        "%%writefile score.py",
        "myenv = CondaDependencies()",
        "read_text())",
        "aci_config = build_aci_config(",
        "ContainerImage.image_configuration(",
        "Webservice.deploy_from_model(",
        "service.wait_for_deployment(show_output=True)",
        "service.scoring_uri",
        "json.loads(service.run(",
        "plot_predictions(",
        "requests.post(",
        "delete_service(service)",
    )  # fmt: skip
    places = []
    for step in steps:
        places.append(source.find(step, places[-1] if places else source.index("%matplotlib")))
        assert places[-1] > 0, step


def test_runs_again_and_replaces_what_a_run_that_was_cut_off_has_left(first_run, home, sample_dir):
    """In the same folder, while another process holds the workspace with such a service in it."""
    from azureml.core.image import ContainerImage
    from azureml.core.webservice import Webservice

    from mnist_deploy import build_aci_config, fetch_model

    ws = local.connect(home)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(first_run.outputs)
        image = ContainerImage.image_configuration("score.py", "python", conda_file="myenv.yml")
        Webservice.deploy_from_model(
            ws, "sklearn-mnist-svc", [fetch_model(ws)], image, build_aci_config()
        ).wait_for_deployment()
    try:
        folder = first_run.outputs.parent
        run = run_probed(NAME, ASKED, folder, home, "--data-dir", str(sample_dir))
    finally:
        local.stop(home)
    assert run.found["differing"] == 0
    assert run.found["services"] == []
    assert "'sklearn-mnist-svc' was left over, in the state Healthy" in run.printed
