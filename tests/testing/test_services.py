"""The services of a mocked workspace, where the contract suite does not look."""

from __future__ import annotations

import numpy as np
import pytest
from azureml.core import Model
from azureml.exceptions import WebserviceException

import mnist_deploy as md

IMAGES = np.zeros((3, 784))


def test_a_deployment_can_be_watched_instead_of_waited_for(mocked_workspace):
    inference_config = md.build_inference_config(md.fetch_environment(mocked_workspace))
    arguments = [md.fetch_model(mocked_workspace)], inference_config, md.build_aci_config()
    service = Model.deploy(mocked_workspace, "svc", *arguments)
    assert service.state == "Transitioning"
    service.update_deployment_state()
    assert service.state == "Healthy"


def test_keys_can_be_chosen(mocked_workspace, deploy):
    service = deploy(mocked_workspace, auth_enabled=True)
    primary, _ = service.get_keys()
    service.regen_key("Secondary", set_key="a key of my own")
    assert service.get_keys() == (primary, "a key of my own")
    assert len(md.post_images(service.scoring_uri, IMAGES, api_key="a key of my own")) == 3


def test_a_short_log_comes_whole(mocked_workspace, deploy):
    service = deploy(mocked_workspace)
    lines = service.get_logs().splitlines()
    assert [line.partition(" mocked - ")[2] for line in lines] == [
        "the container of svc starts",
        "init() returned",
    ]
    assert service.get_logs(num_lines=50).splitlines() == lines


@pytest.mark.parametrize("model_id", ["nobody:1", "sklearn_mnist:2", "gone:1"])
def test_an_unknown_or_deleted_model_is_refused_by_its_id(
    mocked_workspace, tmp_path, monkeypatch, model_id
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.pkl").write_bytes(b"content")
    gone = Model.register(mocked_workspace, "model.pkl", "gone")
    gone.delete()
    with pytest.raises(WebserviceException, match=f"ModelNotFound.*{model_id}"):
        Model(mocked_workspace, id=model_id)
    with pytest.raises(WebserviceException, match="ModelNotFound"):
        gone.delete()


def test_a_model_without_a_pickle_needs_to_be_told_what_to_answer(
    mocked_workspace, tmp_path, monkeypatch, cloud
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "weights.bin").write_bytes(b"\1\2")
    model = Model.register(mocked_workspace, "weights.bin", "weights")
    (tmp_path / "any.py").write_text("def init(): ...\ndef run(data): return []\n")
    inference_config = md.build_inference_config(md.fetch_environment(mocked_workspace), "any.py")
    service = md.deploy_to_aci(mocked_workspace, model, inference_config, md.build_aci_config())
    cloud.expect_error(AssertionError)
    with pytest.raises(AssertionError, match="answer_with"):
        md.call_service(service, IMAGES)
