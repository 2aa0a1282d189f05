"""Models, registered and fetched by the genuine SDK."""

from __future__ import annotations

import hashlib
import os
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from azureml.core import Model
from azureml.exceptions import WebserviceException


@pytest.fixture
def name() -> str:
    """A name that no other test has used."""
    return f"model-{uuid.uuid4().hex[:8]}"


def register(ws, name: str, path: str = "weights.txt", **more) -> Model:
    return Model.register(ws, path, name, **more)


def test_register_keeps_what_it_is_told(local_ws, weights_file, name):
    model = register(
        local_ws,
        name,
        tags={"data": "mnist", "empty": ""},
        properties={"accuracy": "0.92"},
        description="ten digits",
        model_framework=Model.Framework.SCIKITLEARN,
        model_framework_version="1.5",
    )
    again = Model(local_ws, name)
    for seen in (model, again):
        assert (seen.name, seen.version, seen.id) == (name, 1, f"{name}:1")
        assert seen.tags == {"data": "mnist", "empty": ""}
        assert seen.properties["accuracy"] == "0.92"
        assert seen.description == "ten digits"
        assert (seen.model_framework, seen.model_framework_version) == ("ScikitLearn", "1.5")
    assert again.created_time is not None


def test_versions_count_up_and_each_can_be_had(local_ws, weights_file, name):
    for number in (1, 2, 3):
        assert register(local_ws, name, tags={"number": str(number)}).version == number
    assert Model(local_ws, name).version == 3
    assert Model(local_ws, name, version=2).tags == {"number": "2"}
    assert Model(local_ws, id=f"{name}:1").tags == {"number": "1"}


def test_a_file_comes_back_as_it_was(local_ws, name):
    content = os.urandom(100_000)
    Path("model.bin").write_bytes(content)
    model = register(local_ws, name, "model.bin")
    assert model.download("fetched") == os.path.join("fetched", "model.bin")
    assert Path("fetched/model.bin").read_bytes() == content
    with pytest.raises(WebserviceException, match="already exists"):
        model.download("fetched")
    model.download("fetched", exist_ok=True)


def test_a_folder_comes_back_as_it_was(local_ws, name):
    files = {"a.txt": b"a", "sub/b.bin": b"\0\1", "sub/deep/ä ü+%41?#.txt": b"odd", "empty": b""}
    for path, content in files.items():
        file = Path("folder") / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    register(local_ws, name, "folder").download("fetched")
    root = Path("fetched/folder")
    fetched = {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}
    assert fetched == files


def test_only_the_child_paths_of_a_folder(local_ws, name):
    Path("folder").mkdir()
    for file in ("wanted.txt", "other.txt"):
        Path("folder", file).write_text(file)
    model = Model.register(local_ws, "folder", name, child_paths=["wanted.txt"])
    model.download("fetched")
    assert [path.name for path in Path("fetched").rglob("*.txt")] == ["wanted.txt"]


@pytest.mark.processes
def test_a_file_of_70_mb_goes_up_in_blocks(local_ws, local_home, name):
    block = os.urandom(1 << 20)
    with open("large.bin", "wb") as file:
        for number in range(70):
            file.write(number.to_bytes(2, "big") + block)
    wanted = hashlib.sha256(Path("large.bin").read_bytes()).hexdigest()
    model = register(local_ws, name, "large.bin")
    fetched = model.download("fetched")
    assert hashlib.sha256(Path(fetched).read_bytes()).hexdigest() == wanted
    assert not list((local_home / "store" / "staged").iterdir())
    model.delete()


def test_list_by_name_tags_properties_and_latest(local_ws, weights_file, name):
    register(local_ws, name, tags={"kind": "a", "extra": "x"}, properties={"p": "1"})
    register(local_ws, name, tags={"kind": "b"})
    register(local_ws, name + "-other", tags={"kind": "a"})

    def versions(**query) -> list[int]:
        return [model.version for model in Model.list(local_ws, name, **query)]

    assert versions() == [2, 1]
    assert versions(tags=["kind"]) == [2, 1]
    assert versions(tags=[["kind", "a"]]) == [1]
    assert versions(tags=[["kind", "a"], "extra"]) == [1]
    assert versions(tags=[["kind", "c"]]) == []
    assert versions(properties=[["p", "1"]]) == [1]
    assert versions(latest=True) == [2]
    assert versions(dataset_id="no-such-dataset") == []
    names = {model.name for model in Model.list(local_ws, tags=[["kind", "a"]])}
    assert names == {name, name + "-other"}
    assert len(Model.list(local_ws, latest=True)) == len(
        {model.name for model in Model.list(local_ws)}
    )


def test_list_goes_on_after_the_first_page(local_ws, call, mms, weights_file, name):
    first = register(local_ws, name)
    for _ in range(44):  # straight to the point
        assert call("POST", f"{mms}/models", json={"name": name, "url": first.url}).ok
    listed = Model.list(local_ws, name, page_count=20)
    assert [model.version for model in listed] == list(range(45, 0, -1))
    page = call("GET", f"{mms}/models", params={"name": name, "count": 3}).json()
    assert len(page["value"]) == 3
    assert page["nextLink"].startswith("https://127.0.0.1:")


def test_tags_and_description_can_change_and_properties_be_added(local_ws, weights_file, name):
    model = register(local_ws, name, tags={"old": "1"}, properties={"fixed": "1"})
    model.add_tags({"new": "2"})
    model.add_properties({"more": "2"})
    model.update(description="told later", tags={"only": "this"})
    model.properties["fixed"] = "changed by hand"
    with pytest.raises(WebserviceException, match="Properties cannot change"):
        model.add_properties({"third": "3"})
    again = Model(local_ws, name)
    assert again.tags == {"only": "this"}
    assert again.description == "told later"
    assert (again.properties["fixed"], again.properties["more"]) == ("1", "2")


def test_no_change_is_lost(local_ws, call, mms, weights_file, name):
    """Each of several clients adds a tag to the same model at the same time."""
    register(local_ws, name)

    def add(number: int) -> bool:
        change = {"op": "add", "path": f"/kvTags/{number}", "value": "x"}
        return call("PATCH", f"{mms}/models/{name}:1", json=[change]).ok

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(add, range(24)))
    assert len(Model(local_ws, name).tags) == 24


def test_delete_makes_room_but_no_number_comes_back(local_ws, local_home, weights_file, name):
    blobs = local_home / "store" / "blobs"
    before = set(blobs.iterdir())
    model = register(local_ws, name)
    assert len(set(blobs.iterdir()) - before) == 1
    model.delete()
    assert set(blobs.iterdir()) == before
    with pytest.raises(WebserviceException, match="ModelNotFound"):
        Model(local_ws, name)
    assert Model.list(local_ws, name) == []
    assert register(local_ws, name).version == 2


def test_a_model_in_use_cannot_be_deleted(local_ws, registered, service):
    with pytest.raises(WebserviceException, match=r"412[^<>]*first delete shared"):
        registered.delete()
    assert Model(local_ws, "weights").id == registered.id


@pytest.mark.parametrize("query", [{"name": "nobody"}, {"name": "weights", "version": 999}])
def test_a_model_that_is_not_there(local_ws, registered, query):
    with pytest.raises(WebserviceException, match="ModelNotFound"):
        Model(local_ws, **query)


def test_a_model_whose_files_were_not_uploaded_is_refused(local_ws, call, mms):
    asset = {"name": "ghost", "artifacts": [{"prefix": "LocalUpload/nowhere/ghost"}]}
    answer = call("POST", f"{mms}/assets", json=asset)
    assert (answer.status_code, answer.json()["code"]) == (400, "InvalidArtifact")
    model = {"name": "ghost", "url": "aml://asset/nowhere"}
    answer = call("POST", f"{mms}/models", json=model)
    assert (answer.status_code, answer.json()["code"]) == (400, "InvalidAsset")
    assert Model.list(local_ws, "ghost") == []


def test_a_name_that_is_none_is_refused(call, mms, registered):
    for name in ("", "../up", "a/b", "a b", "-a", "a" * 256, "a:1", "a\n"):
        model = {"name": name, "url": registered.url}
        answer = call("POST", f"{mms}/models", json=model)
        assert answer.status_code == 400, name
        assert answer.json()["code"] == "InvalidModelName"
