"""Build contexts: the Dockerfile, the requirements file, and where the uploads go."""

from __future__ import annotations

import platform

import pytest

from mnist_deploy.local.core.container_spec import ContainerSpec, Upload
from mnist_deploy.local.core.faults import Invalid, NotSupported
from mnist_deploy.local.core.package import (
    context_texts,
    context_uploads,
    python_version,
    requirements_file,
)
from mnist_deploy.local.core.records import Model

FOLDER = Model("forest", 2, ("LocalUpload/a/forest",), created="")
FILE = Model("digits", 1, ("LocalUpload/b/digits.pkl",), created="")


def container_spec(**more) -> ContainerSpec:
    conda = {"dependencies": ["python=3.9", {"pip": ["azureml-defaults"]}]}
    return ContainerSpec(**{"script": "score.py", "uploads": (), "conda": conda, **more})


def dockerfile(**more) -> str:
    return context_texts(container_spec(**more))["Dockerfile"]


def test_dockerfile_runs_the_script_with_its_variables_and_models():
    text = dockerfile(models=(FILE,), variables={"GREETING": 'a "b" $c \\'})
    assert "FROM python:3.9-slim\n" in text
    assert r'GREETING="a \"b\" \$c \\"' in text
    assert 'AZUREML_MODEL_DIR="/var/azureml-app/azureml-models/digits/1"' in text
    end = 'USER 1001\nEXPOSE 5001\nCMD ["azmlinfsrv", "--entry_script", "score.py"]\n'
    assert text.endswith(end)
    # The SDK's variable names the script, and several models share a folder.
    text = dockerfile(models=(FILE, FOLDER), variables={"AZUREML_ENTRY_SCRIPT": "src/mine.py"})
    assert '"--entry_script", "src/mine.py"' in text
    assert 'AZUREML_MODEL_DIR="/var/azureml-app/azureml-models"' in text


@pytest.mark.parametrize(
    ("requested", "error", "reason"),
    [
        ({"variables": {"A": "x\nUSER root"}}, Invalid, "cannot be written in a Dockerfile"),
        ({"variables": {"A B": "x"}}, Invalid, "cannot be written in a Dockerfile"),
        ({"variables": {"": "x"}}, Invalid, "cannot be written in a Dockerfile"),
        ({"conda": None}, NotSupported, "list the packages in a conda file"),
    ],
)
def test_spec_without_a_possible_image_is_rejected(requested, error, reason):
    with pytest.raises(error, match=reason):
        dockerfile(**requested)


def test_uploads_and_models_go_to_the_folders_that_the_server_reads():
    uploads = (
        Upload("LocalUpload/c/score.py", "score.py"),
        Upload("d/s.tar", "s.tar", True),
        Upload("d/driver.py", "driver.py"),
    )
    requested = container_spec(
        script="driver.py",
        uploads=uploads,
        variables={"AZUREML_ENTRY_SCRIPT": "score.py"},
        models=(FILE, FOLDER),
    )
    assert list(context_uploads(requested)) == [
        Upload("LocalUpload/c/score.py", "azureml-app"),
        Upload("d/s.tar", "azureml-app", unpack=True),
        Upload("LocalUpload/b/digits.pkl", "azureml-app/azureml-models/digits/1"),
        Upload("LocalUpload/a/forest", "azureml-app/azureml-models/forest/2"),
    ]


@pytest.mark.parametrize(
    ("pins", "version"),
    [
        (["python=3.8"], "3.8"),
        (["conda-forge::python==3.6.2"], "3.6.2"),
        (["numpy=1.26", "python>=3.9"], ".".join(platform.python_version_tuple()[:2])),
    ],
)
def test_pinned_python_becomes_the_base_image(pins, version):
    assert python_version({"dependencies": pins}) == version


def test_requirements_file_lists_packages_and_the_inference_server():
    dependencies = [
        "python=3.9",
        "pip=25.3",
        "conda-forge::python-dateutil=2.9",
        {"pip": ["--extra-index-url https://example.org", "azureml-defaults==1.62.0"]},
    ]
    assert requirements_file({"dependencies": dependencies}).splitlines() == [
        "python-dateutil==2.9.*",
        "--extra-index-url https://example.org",
        "azureml-defaults==1.62.0",
        "setuptools<81  # azureml-core imports its pkg_resources",
    ]
    assert requirements_file({"dependencies": [{"pip": "numpy"}]}) == requirements_file({})
    assert requirements_file({}) == "azureml-inference-server-http<2\n"
