"""The store on disk: versions, artifacts, and recovery after a crash."""

from __future__ import annotations

import contextlib
import dataclasses
import sqlite3
import stat
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from mnist_deploy.local.core import store as store_module
from mnist_deploy.local.core.blobs import Blobs
from mnist_deploy.local.core.faults import Conflict, Invalid, NotFound
from mnist_deploy.local.core.records import Code, Data, Environment, Model
from mnist_deploy.local.core.runs import Job, JobInput, Runs
from mnist_deploy.local.core.store import Store, UnreadableStore


def model(name: str = "a", *artifacts: str, **more) -> Model:
    return Model(name, more.pop("version", 0), artifacts, "2026-01-01", **more)


def environment(name: str = "e", version: str = "", **more) -> Environment:
    return Environment(name, version, "2026-01-01", **more)


def register(store: Store, name: str, content: bytes = b"bytes", folder: str = "c1") -> Model:
    store.write(f"LocalUpload/{folder}/{name}.pkl", [content])
    return store.add(model(name, f"LocalUpload/{folder}"))


@pytest.fixture
def reopen():
    """Close a store, and open it again until the end of the test."""
    opened = []

    def again(store: Store) -> Store:
        store.close()
        opened.append(Store(store.folder))
        return opened[-1]

    yield again
    for each in opened:
        each.close()


def blobs(store: Store) -> int:
    return len(list((store.folder / "blobs").iterdir()))


def staged(store: Store) -> int:
    return len(list((store.folder / "staged").iterdir()))


# Records


def test_stored_record_is_read_unchanged(store):
    store.write("o/c/f", [b"x"])
    records = [
        model("a", "o/c/f", tags={"t": "1"}, other={"v1": {"odd": [1, None]}}, archived=True),
        environment("e", conda={"dependencies": ["a", {"pip": ["b"]}]}, variables={"A": "1"}),
        Code("c", "", ("o/c",), "2026-01-01", digest="d"),
    ]
    for record in records:
        added = store.add(record)
        assert added == dataclasses.replace(record, version=type(record.version)(1))
        assert store.get(type(record), record.name) == added == store.all(type(record))[0]


def test_files_of_data_assets_and_jobs_are_kept_when_the_store_is_opened_again(store, reopen):
    runs = Runs(store)
    experiment = runs.create_experiment("e")
    for path in ("o/data/f", "o/queued/f", "o/ended/f", "batch-jobs/own/p.csv", "o/none/f"):
        store.write(path, [b"x"])
    store.put(Data("d", "1", "2026-01-01", "uri_folder", "o/data"))
    for name in ("queued", "ended"):
        job = Job(("c",), inputs={"i": JobInput((f"o/{name}",), "o")})
        runs.create(experiment, name, kind="script", job=job)
    runs.set_status("ended", "Completed")
    job = Job(("c",), outputs={"score": "batch-jobs/own"})
    runs.create(experiment, "written", kind="script", job=job)
    runs.set_status("written", "Completed")
    store = reopen(store)
    assert [len(store.artifacts(path)) for path in ("o/data", "o/queued", "o/ended", "o/none")] == [
        1, 1, 0, 0
    ]  # fmt: skip
    assert store.artifact("batch-jobs/own/p.csv")
    store.close()


def test_versions_increase_and_are_never_reused(store, reopen):
    assert [store.add(model(name)).version for name in ("a", "a", "b", "a")] == [1, 2, 1, 3]
    assert store.add(environment("a")).version == "1"
    store.delete(Model, "a", 3)
    store = reopen(store)
    assert store.get(Model, "a").version == 2
    assert store.add(model("a")).version == 4
    assert [each.id for each in store.all(Model)] == ["a:4", "b:1", "a:2", "a:1"]
    store.close()


def test_put_writes_a_given_version_once_and_later_versions_follow(store):
    for version in ("7", "a-name", "9" * 30):
        store.put(environment("e", version))
        with pytest.raises(Conflict, match=f"Version {version} of environment e exists already"):
            store.put(environment("e", version, image="another"))
    assert store.get(Environment, "e", "a-name").image is None
    assert store.add(environment("e")).version == "8"


@pytest.mark.parametrize("version", [None, 7])
def test_missing_record_is_reported_by_name(store, version):
    store.add(model("a"))
    name = "b" if version is None else "a"
    assert store.find(Model, name, version) is None
    for attempt in (
        lambda: store.get(Model, name, version),
        lambda: store.change(Model, name, version or 1, lambda record: record),
        lambda: store.delete(Model, name, version or 1),
    ):
        with pytest.raises(NotFound, match=f"no model {name}"):
            attempt()


def test_concurrent_changes_are_kept_and_versions_are_unique(store):
    """Each thread adds another tag to one model, and registers versions meanwhile."""
    store.add(model("a"))

    def work(number: int) -> int:
        store.change(
            Model,
            "a",
            1,
            lambda record: dataclasses.replace(record, tags=record.tags | {str(number): ""}),
        )
        return store.add(model("a")).version

    with ThreadPoolExecutor(8) as pool:
        versions = list(pool.map(work, range(80)))
    assert sorted(versions) == list(range(2, 82))
    assert len(store.get(Model, "a", 1).tags) == 80


def test_failed_transaction_is_rolled_back_and_releases_the_lock(store):
    def fail(record: Model) -> Model:
        raise Invalid("tag", "no")

    store.add(model("a"))
    with pytest.raises(Invalid):
        store.change(Model, "a", 1, fail)
    with pytest.raises(TypeError):
        store.add(model("b", other={"v1": {"value": object()}}))
    with contextlib.suppress(Conflict), store.transaction():
        store.add(model("b"))
        store.put(model("a", version=1))
    assert [each.id for each in store.all(Model)] == ["a:1"]
    assert store.add(model("b")).version == 1


# Artifacts


def test_prefix_selects_a_folder_or_one_artifact(store):
    for path in ("m/x", "m/y/z", "m0", "m-1/x", "model/x", "m"):
        store.write(f"o/c/{path}", [b"x"], {"at": path})
    found = store.artifacts("o/c/m")
    assert [(each.path, each.metadata) for each in found] == [
        (f"o/c/{path}", {"at": path}) for path in ("m", "m/x", "m/y/z")
    ]
    assert store.files("o/c/m%") == []
    store.annotate("o/c/m", {"added": "later"})
    assert store.artifact("o/c/m").metadata == {"added": "later"}
    with pytest.raises(NotFound, match="no artifact o/c/n"):
        store.annotate("o/c/n", {})


def test_blob_is_written_whole_in_blocks_or_again(store, reopen):
    store.write("o/c/f", [b"fi", b"", b"rst"])
    for path in ("o/c/f", "o/c/g"):  # whose blocks do not mix
        for block, content in {"b": b"world", "a": b"hello ", "c": b"never named"}.items():
            store.stage(path, block, [path.encode(), content])
    assert store.artifact("o/c/f").file.read_bytes() == b"first"
    with pytest.raises(Invalid, match="Not all blocks"):
        store.commit("o/c/f", ["a", "z"])
    store.commit("o/c/f", ["a", "b"])
    assert store.artifact("o/c/f").file.read_bytes() == b"o/c/fhello o/c/fworld"
    assert blobs(store) == 1
    assert staged(store) == 1  # of the other
    with pytest.raises(Invalid, match="Not all blocks"):
        reopen(store).commit("o/c/g", ["a"])
    assert staged(store) == 0


def test_interrupted_write_leaves_no_blob(store):
    def cut_off():
        yield b"half"
        raise ConnectionError("the sender is gone")

    for attempt in (store.write, lambda path, chunks: store.stage(path, "1", chunks)):
        with pytest.raises(ConnectionError):
            attempt("o/c/f", cut_off())
        assert (blobs(store), store.artifact("o/c/f")) == (0, None)
        files = [file for file in store.folder.rglob("*") if file.is_file()]
        assert not [file for file in files if file.read_bytes() == b"half"]


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "", "a" * 31, "g" * 32, "..", "a/" * 16])
def test_blob_name_with_path_traversal_is_rejected(tmp_path, name):
    with pytest.raises(ValueError, match=r"hexadecimal|base 16"):
        Blobs(tmp_path).file(name)


@pytest.mark.parametrize(
    "path", ["../x", "o/c/../../x", "/etc/passwd", "o/c/", "o//f", "o/./f", "o\\..", "o/\0", ""]
)
def test_artifact_path_with_path_traversal_is_rejected(store, path):
    for attempt in (store.write, lambda path, chunks: store.stage(path, "1", chunks)):
        with pytest.raises(Invalid, match="must stay in its folder") as refusal:
            attempt(path, [b"x"])
        assert refusal.value.kind == "path"


def test_model_without_its_upload_is_not_registered(store):
    with pytest.raises(Invalid, match="o/c was not uploaded"):
        store.add(model("a", "o/c"))
    assert store.all(Model) == []


def test_deleting_a_model_removes_its_unshared_blobs(store):
    register(store, "a", folder="a")
    register(store, "b", folder="b")
    store.add(model("twin", "LocalUpload/a/a.pkl"))
    store.delete(Model, "a", 1)
    assert blobs(store) == 2
    store.delete(Model, "twin", 1)
    assert store.artifact("LocalUpload/a/a.pkl") is None
    assert blobs(store) == 1


def test_unreferenced_blobs_are_removed_but_uploads_in_progress_stay(store):
    register(store, "kept", folder="kept")
    for folder in ("held", "lonely"):
        store.write(f"o/{folder}/f", [b"uploaded, but never registered"])
    store.stage("o/lonely/large", "1", [b"half"])
    store.gc_roots.append(lambda: ["o/held/f"])
    store.sweep(idle=3600)
    assert blobs(store) == 3
    store.sweep(idle=0)
    assert blobs(store) == 2
    assert (store.artifact("o/lonely/f"), store.artifact("o/held/f") is None) == (None, False)
    assert (staged(store), len(store.artifacts("LocalUpload/kept"))) == (0, 1)


# Reopening the store


def test_registered_artifacts_survive_reopening_and_unregistered_ones_do_not(store, reopen):
    register(store, "a", b"content")
    store.write("LocalUpload/cut/off.pkl", [b"uploaded, but never registered"])
    (store.folder / "blobs" / "0123").write_bytes(b"of a process that was killed")
    store = reopen(store)
    [(path, file)] = store.files(store.get(Model, "a").artifacts[0])
    assert (path, file.read_bytes()) == ("LocalUpload/c1/a.pkl", b"content")
    assert blobs(store) == 1
    store.close()


def test_store_is_private_and_opened_by_one_process(store):
    if sys.platform != "win32":  # there, a folder is as private as the profile that it lies in
        assert stat.S_IMODE(store.folder.stat().st_mode) == 0o700
    register(store, "a")
    other = sqlite3.connect(store.folder / "workspace.sqlite", timeout=0.1)
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        other.execute("SELECT * FROM record").fetchall()
    other.close()
    assert not (store.folder / "workspace.sqlite-shm").exists()


def test_unreadable_store_is_reported(tmp_path):
    later = Store(tmp_path / "later")
    with later.transaction() as database:
        database.execute("PRAGMA user_version = 99")
    later.close()
    with pytest.raises(UnreadableStore, match="a later version of mnist_deploy"):
        Store(tmp_path / "later")
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "workspace.sqlite").write_bytes(b"no database at all" * 100)
    with pytest.raises(UnreadableStore, match="not a database"):
        Store(tmp_path / "damaged")


def test_scan_decodes_only_the_records_that_are_taken(store, monkeypatch):
    for number in range(1, 13):
        store.put(model(f"m{number % 3}", version=number))
    decoded, decode = [], store_module.decode
    monkeypatch.setattr(store_module, "decode", lambda *args: decoded.append(args) or decode(*args))
    scan = store.scan(Model)
    first = [next(scan) for _ in range(3)]
    assert [record.version for _, record in first] == [12, 11, 10]
    assert len(decoded) == 3
    rest = [record.version for _, record in store.scan(Model, before=first[-1][0])]
    assert rest == list(range(9, 0, -1))


def test_scan_continues_after_the_first_chunk(store, monkeypatch):
    monkeypatch.setattr(store_module, "CHUNK", 2)
    for number in range(1, 8):
        store.put(model(f"m{number % 2}", version=number))
    assert [record.version for _, record in store.scan(Model)] == [7, 6, 5, 4, 3, 2, 1]
    assert [record.version for _, record in store.scan(Model, name="m1")] == [7, 5, 3, 1]
    assert [record.version for _, record in store.scan(Model, latest=True)] == [7, 6]
    assert [name for _, name in store.names(Model)] == ["m1", "m0"]
    assert [each.version for each in store.versions(Model, "m0")] == [6, 4, 2]
