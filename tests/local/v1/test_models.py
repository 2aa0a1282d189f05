"""Models, registered and fetched by the genuine SDK."""

from __future__ import annotations

import hashlib
import os
import uuid
from pathlib import Path

import pytest
from azureml.core import Model
from azureml.exceptions import WebserviceException


@pytest.fixture
def name() -> str:
    """A name that no other test has used."""
    return f"model-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def register(local_ws, weights_file, name):
    return lambda path=weights_file, name=name, **more: Model.register(local_ws, path, name, **more)


def files_below(folder: str) -> dict[str, bytes]:
    files = [file for file in Path(folder).rglob("*") if file.is_file()]
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


def test_registered_model_keeps_its_metadata(local_ws, register, name):
    framework = {"model_framework": "ScikitLearn", "model_framework_version": "1.5"}
    made = register(tags={"data": "mnist", "empty": ""}, description="ten digits", **framework)
    for seen in (made, again := Model(local_ws, name)):
        assert (seen.id, seen.description) == (f"{name}:1", "ten digits")
        assert seen.tags == {"data": "mnist", "empty": ""}
        assert (seen.model_framework, seen.model_framework_version) == ("ScikitLearn", "1.5")
    assert again.created_time is not None


def test_downloaded_file_folder_and_subfolder_equal_the_uploaded_ones(register):
    content = os.urandom(100_000)
    Path("model.bin").write_bytes(content)
    model = register("model.bin")
    assert model.download("file") == os.path.join("file", "model.bin")
    assert Path("file/model.bin").read_bytes() == content
    with pytest.raises(WebserviceException, match="already exists"):
        model.download("file")
    model.download("file", exist_ok=True)

    files = {"a.txt": b"a", "sub/b.bin": b"\0\1", "sub/deep/ä ü+%41?#.txt": b"odd", "empty": b""}
    for path, content in files.items():
        file = Path("folder", path)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    register("folder").download("whole")
    assert files_below("whole/folder") == files
    register("folder", child_paths=["a.txt"]).download("part")
    assert [path.name for path in Path("part").rglob("*.*")] == ["a.txt"]


@pytest.mark.processes
def test_file_of_70_mb_is_uploaded_in_blocks(register, local_home):
    block = os.urandom(1 << 20)
    with open("large.bin", "wb") as file:
        for number in range(70):
            file.write(number.to_bytes(2, "big") + block)
    model = register("large.bin")
    digests = [
        hashlib.sha256(Path(path).read_bytes()).hexdigest()
        for path in ("large.bin", model.download("fetched"))
    ]
    assert digests[0] == digests[1]
    assert not list((local_home / "store" / "staged").iterdir())
    model.delete()


def test_models_are_found_by_tags_and_properties(local_ws, register, name):
    register(tags={"kind": "a", "extra": "x"}, properties={"p": "1"})
    register(tags={"kind": "b"})

    def versions(**query) -> list[int]:
        return [model.version for model in Model.list(local_ws, name, **query)]

    assert versions(tags=["kind"]) == [2, 1]
    assert versions(tags=[["kind", "a"], "extra"]) == versions(properties=[["p", "1"]]) == [1]
    assert versions(tags=[["kind", "c"]]) == versions(dataset_id="no-such-dataset") == []
    latest = [model.name for model in Model.list(local_ws, latest=True)]
    assert sorted(latest) == sorted({model.name for model in Model.list(local_ws)})


def test_model_list_continues_after_the_first_page(local_ws, call, mms, register, name):
    url = register().url
    for _ in range(44):  # straight to the point
        assert call("POST", f"{mms}/models", json={"name": name, "url": url}).ok
    listed = Model.list(local_ws, name, page_count=20)
    assert [model.version for model in listed] == list(range(45, 0, -1))
    page = call("GET", f"{mms}/models", params={"name": name, "count": 3}).json()
    assert len(page["value"]) == 3
    assert page["nextLink"].startswith("https://127.0.0.1:")


def test_model_properties_can_be_added_but_not_changed(local_ws, register, name):
    model = register(properties={"fixed": "1"})
    model.add_properties({"more": "2"})
    model.properties["fixed"] = "changed by hand"
    with pytest.raises(WebserviceException, match="Properties can be added, but not changed"):
        model.add_properties({"third": "3"})
    properties = Model(local_ws, name).properties
    assert (properties["fixed"], properties["more"]) == ("1", "2")


def test_model_of_a_running_service_is_not_deleted(registered, service):
    with pytest.raises(WebserviceException, match=r"412[^<>]*first delete shared"):
        registered.delete()


def test_missing_upload_and_invalid_name_are_rejected(local_ws, call, mms, registered):
    def refusal(kind: str, **requested) -> tuple[int, str]:
        answer = call("POST", f"{mms}/{kind}", json=requested)
        return answer.status_code, answer.json()["code"]

    nowhere = [{"prefix": "LocalUpload/nowhere/ghost"}]
    assert refusal("assets", name="ghost", artifacts=nowhere) == (400, "InvalidArtifact")
    assert refusal("models", name="ghost", url="aml://asset/nowhere") == (400, "InvalidAsset")
    assert Model.list(local_ws, "ghost") == []
    for name in ("", "../up", "a/b", "a b", "-a", "a" * 256, "a:1", "a\n"):
        assert refusal("models", name=name, url=registered.url) == (400, "InvalidModelName"), name
