"""Environments of SDK v2: what they install never changes under a version."""

from __future__ import annotations

import pytest
from azure.ai.ml.entities import BuildContext, Environment
from azure.core.exceptions import HttpResponseError
from azureml.core import Environment as EnvironmentV1
from azureml.core.conda_dependencies import CondaDependencies

IMAGE = "mcr.microsoft.com/x"


def conda(python: str) -> dict:
    return {"dependencies": [f"python={python}"]}


def test_environment_keeps_its_fields_and_can_be_archived(client, local_ws):
    requested = Environment(name="kept", image=IMAGE, conda_file=conda("3.11"), tags={"p": "3.11"})
    client.environments.create_or_update(requested)
    found = client.environments.get("kept", label="latest")
    assert (found.conda_file, found.image, found.tags) == (conda("3.11"), IMAGE, {"p": "3.11"})
    assert "kept" in {each.name for each in client.environments.list()}
    client.environments.archive("kept")
    assert "kept" not in {each.name for each in client.environments.list()}

    old = EnvironmentV1("from-v1")
    old.python.conda_dependencies = CondaDependencies.create(pip_packages=["scipy"])
    old.register(local_ws)
    dependencies = client.environments.get("from-v1", "1").conda_file["dependencies"]
    assert "scipy" in dependencies[-1]["pip"]


def test_invalid_environment_is_rejected_with_its_reason(client, environment, tmp_path):
    (tmp_path / "Dockerfile").write_text("FROM scratch")
    (tmp_path / "conda.yml").write_text("- a list")
    again = {"name": environment.name, "version": environment.version, "image": IMAGE}
    for requested, reason in (
        (again | {"conda_file": conda("3.12")}, "has another image or conda file"),
        ({"name": "built", "build": BuildContext(path=str(tmp_path))}, "no container image is"),
        (
            {"name": "odd", "image": IMAGE, "conda_file": str(tmp_path / "conda.yml")},
            "is not a mapping",
        ),
    ):
        with pytest.raises(HttpResponseError, match=reason):
            client.environments.create_or_update(Environment(**requested))
