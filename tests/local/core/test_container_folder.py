"""What lies in a container, and that nothing in an archive gets out of it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from tar_archives import archive

from mnist_deploy.local.core.container_folder import build_folder, script_environment
from mnist_deploy.local.core.container_spec import ContainerSpec, Upload
from mnist_deploy.local.core.faults import NotFound
from mnist_deploy.local.core.records import Model
from mnist_deploy.local.core.store import Store


def upload(store: Store, artifact: str, content: bytes) -> str:
    store.write(artifact, [content])
    return artifact


def model(store: Store, name: str, files: dict[str, bytes]) -> Model:
    for path, content in files.items():
        upload(store, f"LocalUpload/{name}/{path}", content)
    top = next(iter(files)).split("/")[0]
    return Model(name, 3, (f"LocalUpload/{name}/{top}",), "")


def files(folder: Path) -> dict[str, bytes]:
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def test_scripts_and_models_have_the_paths_of_azure(store, tmp_path):
    scripts = archive({"src/score.py": b"score"})
    for path in ("code/a.py", "code/sub/b.py"):
        upload(store, f"o/c/{path}", path.encode())
    container_spec = ContainerSpec(
        "src/score.py",
        (
            Upload(upload(store, "o/c/main.py", b"main"), "main.py"),
            Upload(upload(store, "o/c/src.tar", scripts), unpack=True),
            Upload("o/c/code", "more"),
        ),
        models=(
            model(store, "digits", {"model.pkl": b"pickle"}),
            model(store, "folder", {"top/a": b"a", "top/sub/b": b"b"}),
        ),
        variables={"A": "1", "AZUREML_MODEL_DIR": "/elsewhere"},
    )
    folder = build_folder(tmp_path / "containers", store, container_spec)
    assert files(folder / "app") == {
        "main.py": b"main",
        "score.py": b"score",
        "more/a.py": b"code/a.py",
        "more/sub/b.py": b"code/sub/b.py",
        "azureml-models/digits/3/model.pkl": b"pickle",
        "azureml-models/folder/3/top/a": b"a",
        "azureml-models/folder/3/top/sub/b": b"b",
    }
    models = folder / "app" / "azureml-models"
    both = container_spec.models
    for those, model_dir in ((both[:1], models / "digits" / "3"), (both, models), ((), models)):
        variables = script_environment(
            folder, "svc", dataclasses.replace(container_spec, models=those)
        )
        assert variables["AZUREML_MODEL_DIR"] == str(model_dir)
        assert variables["AZUREML_ENTRY_SCRIPT"] == "src/score.py"
        assert (variables["A"], variables["SERVICE_NAME"]) == ("1", "svc")


@pytest.mark.parametrize("gone", ["upload o/c/never", "model digits:3"])
def test_missing_file_is_reported_and_leaves_no_folder(store, tmp_path, gone):
    there = Upload(upload(store, "o/c/s", b""), "s")
    missing = Upload("o/c/never", "s") if gone.startswith("upload") else there
    container_spec = ContainerSpec("s", (missing,), (Model("digits", 3, ("o/c/no-model",), ""),))
    with pytest.raises(NotFound, match=gone):
        build_folder(tmp_path / "containers", store, container_spec)
    assert not list((tmp_path / "containers").iterdir())


def test_name_that_the_system_cannot_store_leaves_no_folder(store, tmp_path):
    (tmp_path / "containers").mkdir()
    scripts = (Upload(upload(store, "o/c/main.py", b"main"), "n" * 300 + "/main.py"),)
    with pytest.raises(OSError, match="n" * 300):
        build_folder(tmp_path / "containers", store, ContainerSpec("main.py", scripts))
    assert list((tmp_path / "containers").iterdir()) == []
