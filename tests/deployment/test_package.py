"""`package_service`: its files, the check of the key, and a container that is built from it."""

from __future__ import annotations

import io
import os
import shutil
import socket
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import joblib
import numpy as np
import pytest
import requests
import yaml
from polling import wait_until
from weights_service import make_inference_config, register_weights

import mnist_deploy as md
from mnist_deploy.deployment import key_check
from mnist_deploy.errors import AuthenticationFailed, DeploymentError


@pytest.fixture(scope="module")
def model(ws, tmp_path_factory):
    return register_weights(ws, tmp_path_factory.mktemp("weights"), "On_Weights")


@pytest.fixture(scope="module")
def package(ws, model, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("package")
    config = make_inference_config(folder, packages=("numpy",))
    config.source_directory, config.entry_script = None, str(folder / "score_weights.py")
    return md.package_service(ws, model, config, folder / "package")


def manifest_of(package: Path) -> dict[str, dict]:
    documents = yaml.safe_load_all((package / "kubernetes.yml").read_text())
    return {document["kind"]: document for document in documents}


def test_package_has_build_context_and_valid_manifest(package, model):
    assert {path.name for path in package.iterdir()} == {
        *("Dockerfile", "azureml-app", "kubernetes.yml", "requirements.txt")
    }
    assert [path.name for path in package.parent.glob(".mnist_deploy*")] == []
    manifest = manifest_of(package)
    import kubernetes_validate  # takes seconds: its URI grammar is compiled at import

    assert list(manifest) == ["Secret", "Deployment", "Service", "HorizontalPodAutoscaler"]
    for document in manifest.values():
        kubernetes_validate.validate(document, kubernetes_validate.latest_version(), strict=True)
        assert document["metadata"]["name"] == "on-weights"
    pod = manifest["Deployment"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["image"] == f"on-weights:{model.version}"
    assert f"USER {pod['securityContext']['runAsUser']}\n" in (package / "Dockerfile").read_text()


def test_key_is_new_and_readable_by_its_owner_only(package, ws, model, tmp_path):
    another = md.package_service(
        ws, model, make_inference_config(tmp_path, packages=("numpy",)), tmp_path / "another"
    )
    keys = [manifest_of(each)["Secret"]["stringData"]["key"] for each in (package, another)]
    assert len(set(keys)) == 2
    assert min(map(len, keys)) >= 40
    assert stat.S_IMODE((package / "kubernetes.yml").stat().st_mode) == 0o600


@pytest.mark.parametrize("target", ["mine", ""])
def test_existing_files_are_kept(ws, model, tmp_path, target):
    (tmp_path / "mine").write_text("mine")
    config = make_inference_config(tmp_path / "source", packages=("numpy",))
    with pytest.raises(DeploymentError, match="is not empty"):
        md.package_service(ws, model, config, tmp_path / target)
    assert (tmp_path / "mine").read_text() == "mine"
    with pytest.raises(TypeError, match="expected the Model"):
        md.package_service(ws, [], config, tmp_path / "package")


# --- the check of the key ---


def respond_to(authorization: str | None, path: str = "/score") -> tuple[str, bytes]:
    """Status and body of the response to a request, where the key is ``sesame``."""
    statuses = []
    environ = {"PATH_INFO": path, "wsgi.input": io.BytesIO(b"x" * (3 << 20))}
    if authorization is not None:
        environ["HTTP_AUTHORIZATION"] = authorization

    def server(environ, start_response):
        start_response("200 OK", [])
        return [b"scored"]

    checked = key_check.check_key(server, "sesame")
    body = b"".join(checked(environ, lambda status, headers: statuses.append(status)))
    assert (environ["wsgi.input"].read() == b"") == (body != b"scored")
    return statuses[0], body


def test_key_authorizes_scoring_and_health_needs_none():
    assert respond_to("Bearer sesame") == ("200 OK", b"scored")
    assert respond_to(None, "/") == ("200 OK", b"scored")


@pytest.mark.parametrize("header", [None, "", "sesame", "Bearer ", "Bearer sesam", "Bearer \xe9"])
def test_request_without_the_key_is_read_and_rejected(header):
    status, body = respond_to(header)
    assert status == "401 Unauthorized"
    assert b"Authorization: Bearer" in body


def test_gunicorn_does_not_start_without_a_key(monkeypatch):
    monkeypatch.setenv("SERVICE_KEY", "")
    with pytest.raises(SystemExit, match="scoring would need no key"):
        key_check.on_starting(None)


@pytest.mark.processes
def test_gunicorn_checks_the_key_with_the_file_of_the_package(package, model):
    app = package / "azureml-app"
    environment = os.environ | {
        "AML_APP_ROOT": str(app),
        "AZUREML_ENTRY_SCRIPT": "score_weights.py",
        "AZUREML_MODEL_DIR": str(app / f"azureml-models/{model.name}/{model.version}"),
        "SERVICE_KEY": "sesame",
    }
    with socket.create_server(("127.0.0.1", 0)) as listener:
        command = [sys.executable, "-m", "gunicorn", f"--bind=fd://{listener.fileno()}"]
        command.append("azureml_inference_server_http.server.entry:app")
        gunicorn = subprocess.Popen(command, cwd=app, env=environment, pass_fds=[listener.fileno()])
        try:
            uri = f"http://127.0.0.1:{listener.getsockname()[1]}/score"
            keys = [{"Authorization": key} for key in ("Bearer sesame", "Bearer wrong")]
            data = {"data": [[1, 2, 3]]}
            responses = [requests.post(uri, json=data, headers=key, timeout=60) for key in keys]
        finally:
            gunicorn.terminate()
            gunicorn.wait(30)
    assert [each.status_code for each in responses] == [200, 401]
    assert responses[0].json() == [321]


# --- in a container ---

TOOLS = ("debootstrap", "podman", "runc")
PACKAGES = "ca-certificates,python3,python3-pip"
LIMITS = '[containers]\ndefault_ulimits = ["nofile=1024:1024", "nproc=1000:1000"]\n'
# The configuration of pip on this machine, which the build needs as well.
PIP_FILES = ("/etc/ssl/certs", "/etc/pip.conf", "/etc/xdg/pip")


@pytest.fixture(scope="module")
def podman(tmp_path_factory) -> Callable[..., str]:
    """A function that runs podman, with runc and with limits that are valid within a container."""
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing or os.geteuid() != 0:
        pytest.skip(
            f"images are built as root with {', '.join(TOOLS)}; missing: {missing or 'root'}"
        )
    settings = tmp_path_factory.mktemp("podman") / "containers.conf"
    settings.write_text(LIMITS)
    environment = os.environ | {"CONTAINERS_CONF": str(settings), "STORAGE_DRIVER": "overlay"}

    def run(*arguments: str) -> str:
        command = ["podman", "--runtime", "runc", *arguments]
        completed = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=1200, check=False
        )
        assert completed.returncode == 0, completed.stdout[-3000:] + completed.stderr[-3000:]
        return completed.stdout.strip()

    return run


@pytest.fixture(scope="module")
def python_image(podman, tmp_path_factory) -> str:
    """A substitute for ``python:3.11-slim``: Debian bookworm with its Python."""
    root = tmp_path_factory.mktemp("bookworm")
    bootstrap = ["debootstrap", "--variant=minbase", f"--include={PACKAGES}", "bookworm", str(root)]
    subprocess.run(bootstrap, check=True, capture_output=True, timeout=600)
    for marker in root.glob("usr/lib/python3*/EXTERNALLY-MANAGED"):
        marker.unlink()
    archive = root.with_suffix(".tar")
    subprocess.run(["tar", "-C", root, "-cf", archive, "."], check=True, timeout=300)
    shutil.rmtree(root)
    image = podman("import", "--quiet", str(archive), "localhost/mnist-deploy-test/python")
    archive.unlink()
    yield image
    podman("rmi", "--force", image)


@pytest.fixture
def digits(ws, sample_dir, tmp_path) -> Path:
    """A package of the tutorial's service."""
    model = md.prepare_workspace(ws, sample_dir)
    config = md.build_inference_config(md.fetch_environment(ws))
    return md.package_service(ws, model, config, tmp_path / "digits")


@pytest.mark.containers
def test_container_scores_digits(podman, python_image, digits, sample_data):
    """With the restrictions of the manifest: no root, no capabilities, only /tmp is writable."""
    manifest = manifest_of(digits)
    (container,) = manifest["Deployment"]["spec"]["template"]["spec"]["containers"]
    key = manifest["Secret"]["stringData"]["key"]
    secret, plain = container["env"]
    environment = [f"{secret['name']}={key}", f"{plain['name']}={plain['value']}"]
    image = f"localhost/{container['image']}"
    pip = [f"--env={name}={os.environ[name]}" for name in os.environ if name.startswith("PIP_")]
    pip += [f"--volume={path}:{path}:ro" for path in PIP_FILES if Path(path).exists()]
    build = ("build", "--network=host", "--from", python_image, *pip, "--tag", image, str(digits))
    podman(*build)
    restrictions = ("--read-only", "--tmpfs=/tmp", "--user=1001", "--cap-drop=all")
    ports = "--publish=127.0.0.1::5001"
    variables = (f"--env={each}" for each in environment)
    name = podman("run", "--detach", ports, *restrictions, *variables, image)
    try:
        address = podman("port", name, "5001")
        wait_until(lambda: is_healthy(f"http://{address}/"), 60)
        images, labels = sample_data[2:]
        (model_file,) = digits.glob("azureml-app/azureml-models/**/*.pkl")
        uri = f"http://{address}/score"
        scored = md.post_images(uri, images, api_key=key)
        np.testing.assert_array_equal(scored, joblib.load(model_file).predict(images))
        assert np.mean(scored == labels) > 0.85
        with pytest.raises(AuthenticationFailed):
            md.post_images(uri, images, api_key="another")
        assert podman("exec", name, "id", "-u") == "1001"
    finally:
        podman("rm", "--force", name)
        podman("rmi", "--force", image)


def is_healthy(url: str) -> bool:
    try:
        return requests.get(url, timeout=5).text == "Healthy"
    except requests.ConnectionError:
        return False
