"""Images and containers of the Docker Engine API, with genuine scoring processes."""

from __future__ import annotations

import io
import socket
import tarfile
import time

import pytest
import requests
from weights_service import SCRIPT

from mnist_deploy.local.core.faults import Conflict, Failed, Invalid, NotFound
from mnist_deploy.local.core.local_containers import LocalContainers, LocalContainerSpec
from mnist_deploy.local.host import filesystem

FAILING = "def init():\n    raise ValueError('bad weights')\n\ndef run(raw): ...\n"
ENTRY = {"AZUREML_ENTRY_SCRIPT": "score.py"}


@pytest.fixture
def containers(tmp_path):
    made = LocalContainers(tmp_path / "local-containers")
    yield made
    made.close()
    assert not (tmp_path / "local-containers").exists()


@pytest.fixture
def folders(tmp_path):
    """A folder of the script and one of the model."""
    for name, file, text in (("code", "score.py", SCRIPT), ("model", "weights.txt", "1 10 100")):
        (tmp_path / name).mkdir()
        (tmp_path / name / file).write_text(text)
    return tmp_path / "code", tmp_path / "model"


def archive(files: dict[str, str]) -> io.BytesIO:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for name, text in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(text)
            tar.addfile(entry, io.BytesIO(text.encode()))
    packed.seek(0)
    return packed


def build(containers, tag="image", dockerfile="FROM x\n"):
    return containers.build(archive({"Dockerfile": dockerfile}), "Dockerfile", tag)


def mounted(folders, **more) -> LocalContainerSpec:
    code, model = folders
    variables = {
        "AML_APP_ROOT": "/var/azureml-app/code",
        "AZUREML_MODEL_DIR": "/var/azureml-app/azureml-models/",
        **ENTRY,
    }
    binds = [f"{code}:/var/azureml-app/code/", f"{model}:/var/azureml-app/azureml-models/:z"]
    return LocalContainerSpec("image", variables=variables, binds=binds, **more)


def score(container) -> requests.Response:
    url = f"http://127.0.0.1:{container.port}/score"
    return requests.post(url, json={"data": [[1, 2, 3]]}, timeout=60)


def wait_for_exit(container) -> None:
    give_up_at = time.monotonic() + 60
    while container.status == "running":
        assert time.monotonic() < give_up_at, container.log_tail(100)
        time.sleep(0.02)


@pytest.mark.processes
def test_container_serves_mounted_folders_and_can_be_started_again(containers, folders):
    build(containers)
    container = containers.create(mounted(folders))
    assert (container.status, container.port) == ("created", None)
    for number in range(2):
        (folders[1] / "weights.txt").write_text(f"{number + 1} 10 100")
        container.start()
        # Without links, a container has a copy, which is made at its creation.
        weight = number + 1 if filesystem.CAN_LINK else 1
        assert score(container).json() == [320.0 + weight]
        assert container.state == "Healthy"
        container.stop()
        assert (container.status, container.exit_code, container.port) == ("exited", 0, None)
    assert container.log_tail(1000).count("weights are loaded") == 2
    containers.remove(container)
    assert containers.all() == []
    assert (folders[0] / "score.py").is_file()  # a mount is not the container's to remove


@pytest.mark.processes
def test_files_of_the_image_and_of_archives_are_the_containers_own(containers):
    dockerfile = "FROM x\nCOPY app /var/azureml-app\nENV AML_APP_ROOT=/var/azureml-app\n"
    context = {"Dockerfile": dockerfile, "app/m/weights.txt": "1 10 100", "app/score.py": "1 / 0"}
    containers.build(archive(context), "Dockerfile", "own")
    spec = LocalContainerSpec("own", variables=ENTRY | {"AZUREML_MODEL_DIR": "m"})
    one, other = containers.create(spec), containers.create(spec)
    one.extract("/", archive({"var/azureml-app/score.py": SCRIPT}))
    one.start()
    assert score(one).json() == [321.0]
    other.start()
    wait_for_exit(other)
    assert "ZeroDivisionError" in other.log_tail(1000)


@pytest.mark.processes
def test_failed_init_exits_with_its_log_and_frees_the_port(containers, folders):
    (folders[0] / "score.py").write_text(FAILING)
    build(containers)
    container = containers.create(mounted(folders))
    container.start()
    port = container.port
    wait_for_exit(container)
    assert (container.exit_code, container.state) == (1, "Failed")
    assert "ValueError: bad weights" in container.log_tail(1000)
    socket.create_server(("127.0.0.1", port)).close()


def test_port_that_is_taken_is_reported_in_dockers_words(containers, folders):
    build(containers)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        container = containers.create(mounted(folders, port=taken.getsockname()[1]))
        with pytest.raises(Failed, match="port is already allocated"):
            container.start()
        assert container.status == "created"


def test_container_without_script_is_rejected(containers):
    build(containers)
    with pytest.raises(Failed, match="has no scoring script"):
        containers.create(LocalContainerSpec("image")).start()


def test_image_that_loses_its_tag_stays_for_its_containers(containers):
    first = build(containers)
    container = containers.create(LocalContainerSpec("image"))
    second = build(containers)
    assert (first.tags, second.tags) == ([], ["image:latest"])
    assert containers.find_image(first.id) is first
    assert containers.find_image("image") is second
    with pytest.raises(Conflict, match="in use"):
        containers.remove_image(first.id)
    containers.remove(container)
    containers.remove_image(first.id)
    with pytest.raises(NotFound, match="pulls no images"):
        containers.find_image(first.id)


def test_invalid_container_request_is_rejected(containers, tmp_path):
    build(containers)
    with pytest.raises(NotFound, match="no image other"):
        containers.create(LocalContainerSpec("other"))
    with pytest.raises(Invalid, match="no such file or folder"):
        containers.create(LocalContainerSpec("image", binds=["/no/such/folder:/var/x"]))
    with pytest.raises(Invalid, match="is not inside its folder"):
        containers.create(LocalContainerSpec("image", binds=[f"{tmp_path}:/../../out"]))
    containers.create(LocalContainerSpec("image", name="one"))
    with pytest.raises(Conflict, match="a container one already"):
        containers.create(LocalContainerSpec("image", name="one"))
    with pytest.raises(Invalid, match="cannot be unpacked"):
        containers.build(io.BytesIO(b"no archive"), "Dockerfile", "x")


def test_entry_outside_of_the_container_is_rejected(containers, tmp_path):
    build(containers)
    container = containers.create(LocalContainerSpec("image"))
    with pytest.raises(Invalid, match="cannot be unpacked"):
        container.extract("/", archive({"../../../../out": "x"}))
    assert not list(tmp_path.rglob("out"))
