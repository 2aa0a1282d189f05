"""The notebook of the 2019 edition, run for real on the sample: its order, its values, a rerun."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import nbformat
import pytest
import yaml

from mnist_deploy import local
from mnist_deploy.tutorial import tutorial_file

NOTEBOOK = tutorial_file("notebooks/img-classification-part2-deploy-2019.ipynb")
# What a reader cannot see in the outputs is asked of the kernel itself, in a last cell.
PROBE = """
print("PROBE", json.dumps({
    "accuracy": float(np.mean(y_hat == y_test)),
    "differing": int(np.sum(y_hat != y_local)),
    "sample_differing": int(np.sum(result != y_local[sample])),
    "images_drawn": sum(len(ax.images) for ax in figure.axes),
    "raw_status": resp.status_code,
    "raw_answer": resp.text,
    "raw_expected": int(y_hat[index]),
    "image": service.image_id,
    "services": [service.name for service in Webservice.list(ws)],
}))
"""


def run_notebook(folder: Path, home: Path, data_dir: Path) -> tuple[nbformat.NotebookNode, dict]:
    """Run the notebook, with the probe behind its last cell; return it executed, and the probe."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    notebook.cells.append(nbformat.v4.new_code_cell(PROBE))
    nbformat.write(notebook, folder / "probed.ipynb")
    options = ["--notebook", str(folder / "probed.ipynb"), "--data-dir", str(data_dir)]
    run = subprocess.run(
        [sys.executable, "-m", "mnist_deploy", *options],
        cwd=folder,
        env={**os.environ, "MNIST_DEPLOY_HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    executed = nbformat.read(folder / "outputs" / "probed.ipynb", as_version=4)
    return executed, json.loads(printed(executed).rpartition("PROBE")[2])


def printed(notebook: nbformat.NotebookNode) -> str:
    return "".join(o.get("text", "") for cell in notebook.cells for o in cell.get("outputs", []))


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def first_run(tmp_path_factory, home, sample_dir):
    folder = tmp_path_factory.mktemp("first run")
    return folder, *run_notebook(folder, home, sample_dir)


def test_service_agrees_with_the_model_that_was_tested_first(first_run):
    _, _, found = first_run
    assert found["accuracy"] > 0.88
    assert found["differing"] == found["sample_differing"] == 0


def test_service_was_built_from_an_image(first_run):
    assert re.fullmatch(r"sklearn-mnist-svc:\d+", first_run[2]["image"])
    assert "Image creation operation finished" in printed(first_run[1])


def test_draws_thirty_samples(first_run):
    assert first_run[2]["images_drawn"] == 30


def test_raw_answer_is_a_json_string_of_a_list(first_run):
    found = first_run[2]
    assert found["raw_status"] == 200
    assert json.loads(json.loads(found["raw_answer"])) == [found["raw_expected"]]


def test_deletes_its_service(first_run):
    assert first_run[2]["services"] == []


def test_environment_names_this_python_and_the_models_scikit_learn(first_run):
    folder, executed, _ = first_run
    content = yaml.safe_load((folder / "outputs" / "myenv.yml").read_text())
    assert f"python={'.'.join(platform.python_version_tuple()[:2])}" in content["dependencies"]
    (pip,) = [entry["pip"] for entry in content["dependencies"] if isinstance(entry, dict)]
    assert f"scikit-learn=={version('scikit-learn')}" in pip
    assert "environment: " not in printed(executed)  # so nothing differs from what runs


def test_leaves_that_editions_files(first_run, sample_dir):
    outputs = first_run[0] / "outputs"
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
    source = "\n".join(cell.source for cell in nbformat.read(NOTEBOOK, as_version=4).cells)
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


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_runs_again_and_replaces_what_a_run_that_was_cut_off_has_left(first_run, home, sample_dir):
    """In the same folder, while another process holds the workspace with such a service in it."""
    from azureml.core.image import ContainerImage
    from azureml.core.webservice import Webservice

    from mnist_deploy import build_aci_config, fetch_model

    folder = first_run[0]
    ws = local.connect(home)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder / "outputs")
        image = ContainerImage.image_configuration("score.py", "python", conda_file="myenv.yml")
        Webservice.deploy_from_model(
            ws, "sklearn-mnist-svc", [fetch_model(ws)], image, build_aci_config()
        ).wait_for_deployment()
    try:
        executed, found = run_notebook(folder, home, sample_dir)
    finally:
        local.stop(home)
    assert found["differing"] == 0
    assert found["services"] == []
    assert "'sklearn-mnist-svc' was left over, in the state Healthy" in printed(executed)


@pytest.mark.slow
def test_reproduces_the_published_accuracy(tmp_path, genuine_dir):
    _, found = run_notebook(tmp_path, tmp_path / "home", genuine_dir)
    assert found["accuracy"] == pytest.approx(0.9204, abs=0.0003)
    assert found["differing"] == 0
