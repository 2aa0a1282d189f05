"""What is registered, on disk: versions, artifacts, and what a crash may leave behind."""

from __future__ import annotations

import sqlite3
import stat
import threading

import pytest

from mnist_deploy.local.core.store import Store, asset_prefixes


@pytest.fixture
def store(tmp_path):
    opened = Store(tmp_path / "store")
    yield opened
    opened.close()


def register(store: Store, name: str, content: bytes = b"bytes", folder: str = "c1") -> int:
    """What the SDK does to register a model of one file."""
    blob = store.add_artifact(f"LocalUpload/{folder}/{name}.pkl")
    store.blobs.write(blob, [content])
    asset = {"id": f"asset-{folder}-{name}", "artifacts": [{"prefix": f"LocalUpload/{folder}"}]}
    store.add_asset(asset)
    return store.add("model", name, {"name": name, "url": f"aml://asset/{asset['id']}"})


def reopen(store: Store) -> Store:
    store.close()
    return Store(store.folder)


def test_versions_count_up_for_each_name(store):
    assert [store.add("model", name, {"url": ""}) for name in ("a", "a", "b", "a")] == [1, 2, 1, 3]
    assert store.add("environment", "a", {}) == 1


def test_a_version_is_never_used_again(store):
    store.add("model", "a", {"url": "", "first": True})
    store.add("model", "a", {"url": ""})
    store.delete("model", "a", 2)
    assert store.get("model", "a")[1]["first"]
    assert store.add("model", "a", {"url": ""}) == 3
    store = reopen(store)
    store.delete("model", "a", 3)
    assert store.add("model", "a", {"url": ""}) == 4


def test_get_gives_the_newest_or_the_one_asked_for(store):
    for number in range(3):
        store.add("model", "a", {"url": "", "number": number})
    assert store.get("model", "a") == (3, {"url": "", "number": 2})
    assert store.get("model", "a", 1) == (1, {"url": "", "number": 0})
    assert store.get("model", "a", 7) is None
    assert store.get("model", "nobody") is None
    assert [version for _, version, _ in store.all("model")] == [3, 2, 1]


def test_put_replaces_a_version_and_moves_the_count(store):
    store.put("environment", "e", 7, {"is": "old"})
    store.put("environment", "e", 7, {"is": "new"})
    store.put("environment", "e", "a-name", {"is": "named"})
    assert store.get("environment", "e", 7) == (7, {"is": "new"})
    assert store.get("environment", "e", "a-name") == ("a-name", {"is": "named"})
    assert store.add("environment", "e", {}) == 8


def test_an_artifact_prefix_is_a_folder_or_the_artifact_itself(store):
    for path in ("m/x", "m/y/z", "model/x", "m"):
        store.add_artifact(f"o/c/{path}")
    assert [found for found, _ in store.artifacts("o/c/m")] == ["o/c/m", "o/c/m/x", "o/c/m/y/z"]
    assert [found for found, _ in store.artifacts("o/c/m%")] == []


def test_what_is_registered_is_there_after_reopening(store):
    register(store, "a", b"content")
    store = reopen(store)
    version, model = store.get("model", "a")
    asset = store.asset(model["url"].removeprefix("aml://asset/"))
    [(artifact, file)] = store.artifacts(asset_prefixes(asset)[0])
    assert (version, artifact) == (1, "LocalUpload/c1/a.pkl")
    assert file.read_bytes() == b"content"
    store.close()


def test_reopening_sweeps_what_no_model_refers_to(store):
    register(store, "kept", folder="kept")
    blob = store.add_artifact("LocalUpload/cut/off.pkl")
    store.blobs.write(blob, [b"uploaded, but never registered"])
    store.add_asset({"id": "lonely", "artifacts": [{"prefix": "LocalUpload/cut"}]})
    store = reopen(store)
    assert store.asset("lonely") is None
    assert store.artifacts("LocalUpload/cut") == []
    assert not store.blobs.file(blob).exists()
    assert len(store.artifacts("LocalUpload/kept")) == 1
    assert len(list((store.folder / "blobs").iterdir())) == 1
    store.close()


def test_removing_an_asset_removes_its_bytes(store):
    register(store, "a", folder="a")
    register(store, "b", folder="b")
    store.delete("model", "a", 1)
    store.remove_asset("asset-a-a")
    assert store.asset("asset-a-a") is None
    assert store.artifacts("LocalUpload/a") == []
    assert len(list((store.folder / "blobs").iterdir())) == 1
    store.remove_asset("asset-a-a")


def test_an_asset_of_two_models_stays_until_both_are_gone(store):
    register(store, "a")
    store.add("model", "twin", {"name": "twin", "url": "aml://asset/asset-c1-a"})
    store.delete("model", "a", 1)
    store.remove_asset("asset-c1-a")
    assert store.asset("asset-c1-a") is not None
    store.delete("model", "twin", 1)
    store.remove_asset("asset-c1-a")
    assert store.asset("asset-c1-a") is None


def test_a_failed_transaction_changes_nothing_and_blocks_nobody(store):
    store.add_asset({"id": "one"})
    with pytest.raises(sqlite3.IntegrityError):
        store.add_asset({"id": "one"})
    with pytest.raises(TypeError):
        store.add("model", "a", {"url": object()})
    assert store.all("model") == []
    assert store.add("model", "a", {"url": ""}) == 1


def test_versions_from_many_threads_are_all_different(store):
    versions = []
    threads = [
        threading.Thread(
            target=lambda: versions.extend(store.add("model", "a", {"url": ""}) for _ in range(20))
        )
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(versions) == list(range(1, 161))


def test_nobody_else_may_read_the_store(store):
    folder = store.folder
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_one_process_has_it_for_itself(store):
    register(store, "a")
    stranger = sqlite3.connect(store.folder / "workspace.sqlite", timeout=0.1)
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        stranger.execute("SELECT * FROM versioned").fetchall()
    stranger.close()
    assert not (store.folder / "workspace.sqlite-shm").exists()
