"""Environments of SDK v2: what they install never changes under a version."""

from __future__ import annotations

import pytest
from azure.ai.ml.entities import BuildContext, Environment
from azure.core.exceptions import HttpResponseError, ResourceExistsError
from azureml.core import Environment as EnvironmentV1
from azureml.core.conda_dependencies import CondaDependencies

IMAGE = "mcr.microsoft.com/x"


def conda(python: str) -> dict:
    return {"dependencies": [f"python={python}"]}


def test_the_same_again_is_the_same_version_and_a_change_is_the_next(client):
    versions = [
        client.environments.create_or_update(
            Environment(name="grows", image=IMAGE, conda_file=conda(python), tags={"p": python})
        ).version
        for python in ("3.10", "3.10", "3.11")
    ]
    assert versions == ["1", "1", "2"]
    found = client.environments.get("grows", label="latest")
    assert (found.conda_file, found.image, found.tags) == (conda("3.11"), IMAGE, {"p": "3.11"})
    assert [each.version for each in client.environments.list("grows")] == ["2", "1"]
    assert "grows" in {each.name for each in client.environments.list()}
    client.environments.archive("grows")
    assert "grows" not in {each.name for each in client.environments.list()}


def test_what_one_sdk_registers_the_other_sees(client, local_ws, environment):
    seen = EnvironmentV1.get(local_ws, environment.name)
    assert list(seen.python.conda_dependencies.pip_packages) == ["numpy"]

    old = EnvironmentV1("from-v1")
    old.python.conda_dependencies = CondaDependencies.create(pip_packages=["scipy"])
    old.register(local_ws)
    dependencies = client.environments.get("from-v1", "1").conda_file["dependencies"]
    assert "scipy" in dependencies[-1]["pip"]


def test_what_cannot_be_is_refused_with_its_reason(client, environment, tmp_path):
    with pytest.raises(ResourceExistsError, match="installs something else"):
        client.environments.create_or_update(
            Environment(
                name=environment.name,
                version=environment.version,
                image=IMAGE,
                conda_file=conda("3.12"),
            )
        )
    (tmp_path / "Dockerfile").write_text("FROM scratch")
    with pytest.raises(HttpResponseError, match="no container image is built here"):
        client.environments.create_or_update(
            Environment(name="built", build=BuildContext(path=str(tmp_path)))
        )
    (tmp_path / "conda.yml").write_text("- a list")
    with pytest.raises(HttpResponseError, match="no mapping of names"):
        client.environments.create_or_update(
            Environment(name="odd", image=IMAGE, conda_file=str(tmp_path / "conda.yml"))
        )
