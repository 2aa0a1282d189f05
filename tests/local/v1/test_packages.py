"""Packages through the genuine SDK: contents of the saved package, and rejected options."""

from __future__ import annotations

from pathlib import Path

import pytest
from azureml.core import Environment, Model
from azureml.exceptions import WebserviceException
from weights_service import SCRIPT, make_inference_config

PACKAGES = ("azureml-defaults", "numpy==1.26.0")


def test_package_is_saved_with_all_its_files(local_ws, registered, tmp_path):
    config = make_inference_config(tmp_path / "source", packages=PACKAGES)
    package = Model.package(local_ws, [registered], config, generate_dockerfile=True)
    package.wait_for_creation(show_output=True)
    assert package.state == "Succeeded"
    log = package.get_logs()
    assert "FROM python:" in log
    assert "numpy==1.26.0" in log
    assert "No image is built here" in log
    assert package.get_logs(offset=len(log)) == ""
    package.save(str(tmp_path / "saved"))
    saved = tmp_path / "saved"
    assert (saved / "azureml-app/source/score_weights.py").read_text() == SCRIPT
    weights = saved / f"azureml-app/azureml-models/weights/{registered.version}/weights.txt"
    assert weights.read_text() == "1 10 100"
    assert set(PACKAGES) <= set((saved / "requirements.txt").read_text().splitlines())
    assert "FROM python:" in (saved / "Dockerfile").read_text()
    assert config.environment.name not in Environment.list(local_ws)


def test_model_folder_and_script_without_folder_are_packaged(local_ws, tmp_path):
    folder = tmp_path / "forest"
    (folder / "trees").mkdir(parents=True)
    for name in ("index", "trees/1", "trees/2"):
        (folder / name).write_text(name)
    model = Model.register(local_ws, "forest", "forest")
    config = make_inference_config(tmp_path, packages=PACKAGES)
    config.source_directory, config.entry_script = None, str(tmp_path / "score_weights.py")
    package = Model.package(local_ws, [model], config, generate_dockerfile=True)
    package.save(str(tmp_path / "saved"))
    app = tmp_path / "saved/azureml-app"
    assert (app / "score_weights.py").read_text() == SCRIPT
    below = app / f"azureml-models/forest/{model.version}/forest"
    assert {str(each.relative_to(below)) for each in below.rglob("*") if each.is_file()} == {
        "index",
        "trees/1",
        "trees/2",
    }


@pytest.mark.parametrize(
    ("packages", "options", "message"),
    [
        (PACKAGES, {}, "pass generate_dockerfile=True, save"),
        ((), {"generate_dockerfile": True}, "list the packages in a conda file"),
    ],
)
def test_unsupported_package_option_is_rejected(
    local_ws, registered, tmp_path: Path, packages, options, message
):
    config = make_inference_config(tmp_path, packages=packages)
    with pytest.raises(WebserviceException, match=message):
        Model.package(local_ws, [registered], config, **options)
