"""Models of SDK v2: registration, listing, download and archiving, with models of both SDKs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from azure.ai.ml.entities import Model
from azure.core.exceptions import HttpResponseError

from mnist_deploy import local


def files_below(folder: Path) -> dict[str, bytes]:
    files = [file for file in sorted(folder.rglob("*")) if file.is_file()]
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


def test_downloaded_folder_and_file_equal_the_uploaded_ones(client, folder, tmp_path):
    for path in ("weights", "weights/weights.txt"):
        made = client.models.create_or_update(
            Model(name="back", path=str(folder / path), description="d", tags={"a": "b"})
        )
        assert (made.description, made.tags, made.type) == ("d", {"a": "b"}, "custom_model")
        assert made.creation_context.created_by == "local user"
        client.models.download("back", made.version, download_path=tmp_path / made.version)
    assert files_below(tmp_path / "1" / "back" / "weights") == files_below(folder / "weights")
    assert files_below(tmp_path / "2" / "back") == {"weights.txt": b"1 10 100"}


@pytest.mark.processes
def test_workspaces_of_one_process_have_separate_models(client, folder, tmp_path):
    with pytest.MonkeyPatch.context() as patch:
        for name in ("AZUREML_CURRENT_CLOUD", "REQUESTS_CA_BUNDLE"):  # as before in the end
            patch.setenv(name, os.environ.get(name, ""))
        other = local.connect_client(tmp_path / "home")
        try:
            for each in (client, other):
                each.models.create_or_update(Model(name="apart", path=str(folder / "weights")))
            assert [model.name for model in other.models.list()] == ["apart"]
        finally:
            local.stop(tmp_path / "home")


def test_model_versions_and_containers_can_be_archived_and_restored(client, folder):
    for _ in range(2):
        client.models.create_or_update(Model(name="old", path=str(folder / "weights")))
    client.models.archive("old", "1")
    assert [each.version for each in client.models.list("old")] == ["2"]
    client.models.archive("old")
    assert "old" not in {each.name for each in client.models.list()}
    client.models.restore("old")
    assert [each.version for each in client.models.list("old")] == ["2", "1"]
    [container] = [each for each in client.models.list() if each.name == "old"]
    assert container.latest_version == "2"


def test_model_that_sdk_v1_registered_is_downloaded(client, registered, tmp_path):
    seen = client.models.get(registered.name, str(registered.version))
    client.models.download(registered.name, seen.version, download_path=tmp_path)
    assert (tmp_path / registered.name / "weights.txt").read_text() == "1 10 100"


def test_invalid_model_is_rejected_with_its_reason(client, folder, model):
    files = {"path": str(folder / "weights")}
    uri = "azureml://datastores/workspaceblobstore/paths/LocalUpload/none"
    for requested, reason in (
        ({"name": "x", "version": "abc"} | files, "'abc' is not a version of a model"),
        ({"name": model.name, "version": model.version} | files, "Asset paths cannot be updated"),
        ({"name": "x", "path": "azureml://jobs/j/outputs/o/paths/p"}, "There is no run j"),
        ({"name": "x", "path": uri}, "LocalUpload/none was not uploaded"),
    ):  # fmt: skip
        with pytest.raises(HttpResponseError, match=reason):
            client.models.create_or_update(Model(**requested))


def test_long_model_list_is_paged(client, call, model):
    versions = model.id.rpartition("/")[0].replace(model.name, "many")
    body = {"properties": {"modelUri": model.path, "modelType": "custom_model"}}
    for number in range(1, 103):
        assert call("PUT", f"{versions}/{number}", json=body).status_code == 200
    found = [int(each.version) for each in client.models.list("many")]
    assert found == list(range(102, 0, -1))


@pytest.mark.processes
def test_file_of_150_mb_is_uploaded_in_blocks(client, tmp_path):
    content = os.urandom(150 << 20)
    (tmp_path / "large.bin").write_bytes(content)
    made = client.models.create_or_update(Model(name="large", path=str(tmp_path / "large.bin")))
    client.models.download("large", made.version, download_path=tmp_path)
    assert (tmp_path / "large" / "large.bin").read_bytes() == content
