"""The notebook of the 2019 edition: its order, and two runs on the sample in one folder."""

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
EXPRESSIONS = PROBE | {
    "raw_status": "resp.status_code",
    "raw_answer": "resp.text",
    "image": "service.image_id",
}


@pytest.fixture(scope="module")
def first_run(tmp_path_factory, home, sample_dir):
    folder = tmp_path_factory.mktemp("first run")
    return run_probed(NAME, EXPRESSIONS, folder, home, "--data-dir", str(sample_dir))


def test_service_from_an_image_gives_the_labels_of_the_local_model(first_run):
    values = first_run.values
    assert values["accuracy"] > 0.88
    assert re.fullmatch(r"sklearn-mnist-svc:\d+", values["image"])
    assert "Image creation operation finished" in first_run.printed
    answer = json.loads(json.loads(values["raw_answer"]))  # a JSON string of a list
    assert values["differing"] == values["sample_differing"] == 0
    assert (values["images_drawn"], values["services"]) == (30, [])
    assert (values["raw_status"], answer) == (200, [values["raw_expected"]])


def test_conda_file_names_this_python_and_the_scikit_learn_of_the_model(first_run):
    content = yaml.safe_load((first_run.outputs / "myenv.yml").read_text())
    assert f"python={'.'.join(platform.python_version_tuple()[:2])}" in content["dependencies"]
    (pip,) = [entry["pip"] for entry in content["dependencies"] if isinstance(entry, dict)]
    assert f"scikit-learn=={version('scikit-learn')}" in pip
    assert "environment: " not in first_run.printed  # no difference to report


def test_run_leaves_the_files_of_its_edition(first_run, sample_dir):
    outputs = first_run.outputs
    assert (outputs / "conf.png").read_bytes().startswith(b"\x89PNG")
    assert "Model.get_model_path" in (outputs / "score.py").read_text()
    for published, name in (
        ("t10k-images-idx3-ubyte", "test-images"),
        ("t10k-labels-idx1-ubyte", "test-labels"),
    ):
        written = (outputs / "data" / f"{name}.gz").read_bytes()
        assert written == (sample_dir / f"{published}.gz").read_bytes()


def test_steps_are_in_the_order_of_the_edition():
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


def test_second_run_replaces_the_service_of_an_interrupted_run(first_run, home, sample_dir):
    """In the same folder, while this process keeps the workspace and the service."""
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
        run = run_probed(NAME, EXPRESSIONS, folder, home, "--data-dir", str(sample_dir))
    finally:
        local.stop(home)
    assert run.values["differing"] == 0
    assert run.values["services"] == []
    assert (
        "Deleting the service 'sklearn-mnist-svc' of an earlier run, state Healthy." in run.printed
    )
