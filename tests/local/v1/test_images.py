"""Container images (deployments of 2019) through the genuine SDK."""

from __future__ import annotations

import json

import pytest
import requests
from azureml.core import Environment, Model
from azureml.core.image import ContainerImage, Image
from azureml.core.model import InferenceConfig
from azureml.core.webservice import AciWebservice, Webservice
from azureml.exceptions import WebserviceException

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

SCRIPT = """
import json

import beside
from azureml.core.model import Model

def init():
    global first
    first = open(Model.get_model_path("numbers")).read().split()[0]

def run(raw):
    return json.dumps([beside.GREETING, first, *json.loads(raw)])
"""
CONDA_FILE = """
dependencies:
- python=3.6.2
- scikit-learn=0.20.1
- pip:
  - no-such-package==1.0
"""


@pytest.fixture
def model(local_ws, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "numbers.txt").write_text("17 4")
    return Model.register(local_ws, "numbers.txt", "numbers")


@pytest.fixture
def configuration(tmp_path, model):
    """Make an image configuration of a script, a conda file and a module beside it."""
    (tmp_path / "score.py").write_text(SCRIPT)
    (tmp_path / "beside.py").write_text("GREETING = 'here'\n")
    (tmp_path / "myenv.yml").write_text(CONDA_FILE)

    def make(**more):
        options = {"runtime": "python", "conda_file": "myenv.yml", "dependencies": ["beside.py"]}
        return ContainerImage.image_configuration("score.py", **{**options, **more})

    return make


@pytest.fixture
def deployed(local_ws, model, configuration):
    service = Webservice.deploy_from_model(
        local_ws,
        "by-image",
        [model],
        configuration(tags={"year": "2019"}),
        AciWebservice.deploy_configuration(cpu_cores=1, memory_gb=1),
    )
    yield service
    service.delete()


def test_image_is_created_and_deployed_from_a_model(local_ws, model, deployed, capsys):
    deployed.wait_for_deployment(show_output=True)
    assert json.loads(deployed.run("[1, 2]")) == ["here", "17", 1, 2]
    answer = requests.post(deployed.scoring_uri, data="[3]", timeout=30)
    assert json.loads(answer.json()) == ["here", "17", 3]
    assert [each.id for each in deployed.models] == [model.id]
    assert Webservice(local_ws, "by-image").image_id == deployed.image_id
    shown, log = capsys.readouterr().out, deployed.get_logs()
    for line in ("python: required ==3.6.2", "scikit-learn: required ==0.20.1",
                 "no-such-package: required ==1.0, installed none"):  # fmt: skip
        assert (shown.count(line), log.count(line)) == (1, 1)


def test_image_versions_are_numbered_found_and_deleted(local_ws, model, configuration):
    def create(models: list[Model], **more) -> ContainerImage:
        return ContainerImage.create(local_ws, "numbers-img", models, configuration(**more))

    def found(**query) -> list[int]:
        return [each.version for each in Image.list(local_ws, image_name="numbers-img", **query)]

    one, two = create([model], tags={"n": "1"}), create([model, model])
    two.wait_for_creation()
    assert (one.version, two.version, two.creation_state) == (1, 2, "Succeeded")
    assert [each.id for each in two.models] == [model.id]
    assert Image(local_ws, "numbers-img").version == 2
    assert Image(local_ws, "numbers-img", version="1").version == 1
    assert Image(local_ws, id="numbers-img:1").tags == {"n": "1"}
    assert found() == found(model_id=model.id) == [2, 1]
    assert (found(tags=[["n", "1"]]), found(model_name="another")) == ([1], [])

    one.add_tags({"more": "of it"})
    assert Image(local_ws, id="numbers-img:1").tags == {"n": "1", "more": "of it"}
    for image in (one, two):
        image.delete()
    assert found() == []
    with pytest.raises(WebserviceException, match="ImageNotFound"):
        Image(local_ws, "numbers-img")
    three = create([model])
    assert three.version == 3
    three.delete()


@pytest.mark.processes
@pytest.mark.filterwarnings("ignore::PendingDeprecationWarning", "ignore::FutureWarning")
def test_service_is_updated_between_images_and_environments(
    local_ws, model, configuration, deployed, tmp_path
):
    deployed.wait_for_deployment()
    image = ContainerImage.create(local_ws, "back", [model], configuration())
    (tmp_path / "score.py").write_text("def init(): pass\ndef run(raw): return 'later'\n")
    later = ContainerImage.create(local_ws, "later", [model], configuration())
    deployed.update(image=later, tags={"now": "later"})
    deployed.wait_for_deployment()
    assert deployed.run("[]") == "later"
    assert (deployed.image_id, deployed.tags) == ("later:1", {"now": "later"})

    (tmp_path / "last.py").write_text("def init(): pass\ndef run(raw): return 'last'\n")
    last = InferenceConfig("last.py", environment=Environment("last"))
    service = Model.deploy(local_ws, "by-image", [model], last, overwrite=True)
    service.wait_for_deployment()
    assert service.run("[]") == "last"
    assert service.image_id is None

    service = Webservice.deploy_from_image(local_ws, "by-image", image, overwrite=True)
    service.wait_for_deployment()
    assert json.loads(service.run("[]")) == ["here", "17"]
    assert (service.image_id, service.environment) == ("back:1", None)


@pytest.mark.parametrize(
    ("option", "conda", "message"),
    [
        ({"runtime": "spark-py"}, CONDA_FILE, "(?s)501.*SparkPython"),
        ({"docker_file": "myenv.yml"}, CONDA_FILE, "(?s)501.*docker_file"),
        ({"enable_gpu": True}, CONDA_FILE, "(?s)501.*GPUs"),
        ({}, "a: [", "InvalidCondaFile"),
        ({}, "just text", "InvalidCondaFile"),
    ],
)
def test_unsupported_image_option_is_rejected(
    local_ws, model, configuration, tmp_path, option, conda, message
):
    wanted = configuration(**option)
    (tmp_path / "myenv.yml").write_text(conda)
    with pytest.raises(WebserviceException, match=message):
        ContainerImage.create(local_ws, "rejected", [model], wanted)


def test_image_with_a_missing_upload_is_rejected(call, mms):
    image = {
        "name": "forged",
        "imageType": "Docker",
        "imageFlavor": "WebApiContainer",
        "driverProgram": "driver",
        "targetRuntime": {"runtimeType": "Python", "properties": {}},
        "assets": [{"id": "driver", "url": "aml://artifact/LocalUpload/none/driver"}],
    }
    answer = call("POST", f"{mms}/images", json=image)
    assert (answer.status_code, answer.json()["code"]) == (404, "UploadNotFound")


def test_deleted_model_of_an_image_is_reported_by_name(local_ws, model, configuration):
    image = ContainerImage.create(local_ws, "orphan", [model], configuration())
    model.delete()
    with pytest.raises(WebserviceException, match="ModelNotFound"):
        Webservice.deploy_from_image(local_ws, "orphan-svc", image)
