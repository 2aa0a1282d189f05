"""Options of SDK v1 that are reported or rejected; `test_sdk_options.py` of SDK v2 lists all."""

from __future__ import annotations

import os

import pytest
from azureml.core import Model
from azureml.core.compute import AksCompute, ComputeTarget
from azureml.core.model import InferenceConfig
from azureml.core.webservice import AciWebservice, AksWebservice
from azureml.exceptions import WebserviceException
from weights_service import make_inference_config

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

SCRIPT = "def init(): pass\ndef run(raw): return open('data.txt').read()\n"


def small(**more):
    return AciWebservice.deploy_configuration(cpu_cores=1, memory_gb=1, **more)


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / "score.py").write_text(
        "import os\nhere = os.path.dirname(os.path.abspath(__file__))\n"
        "def init(): pass\ndef run(raw): return sorted(os.listdir(here))\n"
    )
    return folder


def test_links_inside_a_source_directory_are_copied_and_others_reported(
    local_ws, source, tmp_path, capsys
):
    """InferenceConfig.source_directory: the SDK packs the folder with its links."""
    (tmp_path / "outside.txt").write_text("x")
    (source / "data.txt").write_text("x")
    (source / "inside.txt").symlink_to("data.txt")
    (source / "outside.txt").symlink_to(tmp_path / "outside.txt")
    os.link(source / "data.txt", source / "hard.txt")
    config = make_inference_config(tmp_path)
    config = InferenceConfig(
        "score.py", source_directory=str(source), environment=config.environment
    )
    service = Model.deploy(local_ws, "links", [], config, small())
    service.wait_for_deployment(show_output=True)
    found, shown, log = service.run("{}"), capsys.readouterr().out, service.get_logs()
    service.delete()
    assert {"data.txt", "inside.txt", "hard.txt"} <= set(found)
    assert "outside.txt" not in found
    warning = "source_directory: the link source/outside.txt is not copied"
    assert warning in shown
    assert warning in log


def test_inference_config_without_environment_is_rejected(local_ws, source):
    """InferenceConfig: without an environment, Azure has no image to run the script in."""
    config = InferenceConfig("score.py", source_directory=str(source))
    with pytest.raises(WebserviceException, match="InferenceConfig has no environment"):
        Model.deploy(local_ws, "bare", [], config, small())


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"cuda_version": "9.1"}, "enable_gpu, cuda_version"),
        ({"extra_docker_file_steps": "steps"}, "extra_docker_file_steps"),
        ({"runtime": "spark-py"}, "runtime Spark"),
    ],
)
def test_rejected_options_of_an_inference_config_are_named(local_ws, source, options, reason):
    (source / "steps").write_text("RUN true")
    config = InferenceConfig(
        "score.py", source_directory=str(source), **({"runtime": "python"} | options)
    )
    with pytest.raises(WebserviceException, match=f"(?s)501.*{reason}"):
        Model.deploy(local_ws, "rejected", [], config, small())


@pytest.mark.parametrize(
    ("options", "warning"),
    [
        ({"base_image": "own/image:1"}, "not in the base image own/image:1"),
        ({"enable_gpu": True}, "enable_gpu, cuda_version: the image"),
        ({"cuda_version": "10.0"}, "enable_gpu, cuda_version: the image"),
    ],
)
def test_warned_options_of_an_inference_config_are_in_the_output(
    local_ws, source, capsys, options, warning
):
    config = InferenceConfig("score.py", "python", source_directory=str(source), **options)
    service = Model.deploy(local_ws, "based", [], config, small())
    service.wait_for_deployment(show_output=True)
    service.delete()
    assert warning in capsys.readouterr().out


def test_warned_options_of_aks_are_in_output_and_log(local_ws, source, tmp_path, capsys):
    """AksWebservice.deploy_configuration."""
    cluster = ComputeTarget.create(local_ws, "warned", AksCompute.provisioning_configuration())
    config = AksWebservice.deploy_configuration(
        memory_gb=1, autoscale_enabled=True, autoscale_min_replicas=1, autoscale_max_replicas=2,
        autoscale_refresh_seconds=1, autoscale_target_utilization=70, namespace="digits",
        blobfuse_enabled=True,
    )  # fmt: skip
    service = Model.deploy(
        local_ws, "warned", [], make_inference_config(tmp_path, SCRIPT), config, cluster
    )
    service.wait_for_deployment(show_output=True)
    shown, log = capsys.readouterr().out, service.get_logs()
    service.delete()
    cluster.delete()
    for option in ("cluster", "autoscale", "namespace", "blobfuse_enabled"):
        assert f"{option}: " in shown
        assert f"{option}: " in log


def test_location_of_aci_is_reported(local_ws, tmp_path, capsys):
    """AciWebservice.deploy_configuration: ``location`` and ``dns_name_label``."""
    config = small(location="westeurope", dns_name_label="digits")
    service = Model.deploy(local_ws, "located", [], make_inference_config(tmp_path, SCRIPT), config)
    service.wait_for_deployment(show_output=True)
    shown, log = capsys.readouterr().out, service.get_logs()
    service.delete()
    for option in ("location", "dns_name_label"):
        assert f"{option}: " in shown
        assert f"{option}: " in log
