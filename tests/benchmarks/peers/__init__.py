"""The peer products: how each is installed into a separate environment, prepared and started.

Each serves the same joblib file with one worker and one BLAS thread, as our container of one
core does.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
from servers import PeerServer
from ways import BENTOML, MLFLOW_JSON, MLSERVER, OUR_JSON, Form

HERE = Path(__file__).parent
INSTALL_TIMEOUT = 1800  # seconds
# For their clients; and the scikit-learn that saved the model.
COMMON = ("orjson", "requests", "joblib", f"scikit-learn=={version('scikit-learn')}")
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "PYTHONPATH": "",
    "DO_NOT_TRACK": "1",
    "BENTOML_DO_NOT_TRACK": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}


@dataclass(frozen=True)
class Site:
    """Where one server of a peer runs: its programs, its folder, its port and its model."""

    programs: Path
    folder: Path
    port: int
    model: Path


@dataclass(frozen=True)
class Peer:
    """A peer product; ``command`` prepares a folder and returns the server's command line."""

    name: str
    requirements: tuple[str, ...]
    form: Form
    command: Callable[[Site], list[str]]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def mlflow_command(site: Site) -> list[str]:
    saving = [str(site.programs / "python"), str(HERE / "mlflow_model.py")]
    _run([*saving, str(site.model), str(site.folder / "model")], "the model was not saved")
    serve = [str(site.programs / "mlflow"), "models", "serve", "--model-uri", "model"]
    return [*serve, "--env-manager", "local", "--port", str(site.port)]


def bentoml_command(site: Site) -> list[str]:
    serve = [str(site.programs / "bentoml"), "serve", "bentoml_service:Digits"]
    return [*serve, "--working-dir", str(HERE), "--host", "127.0.0.1", "--port", str(site.port)]


def mlserver_command(site: Site) -> list[str]:
    settings = {
        "host": "127.0.0.1",
        "http_port": site.port,
        "grpc_port": free_port(),
        "metrics_endpoint": None,
        "parallel_workers": 0,  # in the server's own process: faster than sending it arrays
        "debug": False,
    }
    model = {
        "name": "digits",
        "implementation": "mlserver_sklearn.SKLearnModel",
        "parameters": {"uri": str(site.model)},
    }
    (site.folder / "settings.json").write_text(json.dumps(settings))
    (site.folder / "model-settings.json").write_text(json.dumps(model))
    return [str(site.programs / "mlserver"), "start", str(site.folder)]


def fastapi_command(site: Site) -> list[str]:
    serve = [str(site.programs / "uvicorn"), "fastapi_app:app", "--app-dir", str(HERE)]
    return [*serve, "--port", str(site.port), "--no-access-log"]


PEERS = {
    peer.name: peer
    for peer in (
        Peer("mlflow", ("mlflow", "pyarrow"), MLFLOW_JSON, mlflow_command),
        Peer("bentoml", ("bentoml", "setuptools<81"), BENTOML, bentoml_command),
        Peer("mlserver", ("mlserver", "mlserver-sklearn"), MLSERVER, mlserver_command),
        Peer("fastapi", ("fastapi", "uvicorn[standard]"), OUR_JSON, fastapi_command),
    )
}


def install(peer: Peer, peers_dir: Path) -> Path:
    """Install a peer unless it is installed, and return the folder of its programs.

    Raises
    ------
    RuntimeError
        pip could not; with its last line.
    """
    folder = peers_dir / f"{peer.name}-{sys.version_info.major}.{sys.version_info.minor}"
    programs = folder / "bin"
    wanted = "\n".join(sorted({*peer.requirements, *COMMON}))
    receipt = folder / "installed.txt"
    if not receipt.exists() or receipt.read_text() != wanted:
        print(f"Installing {peer.name} into {folder}.", file=sys.stderr, flush=True)
        _run([sys.executable, "-m", "venv", "--clear", str(folder)], "no environment")
        pip = [str(programs / "python"), "-m", "pip", "install", "--quiet"]
        _run([*pip, *wanted.splitlines()], "it cannot be installed here")
        receipt.write_text(wanted)
    return programs


def start(
    peer: Peer, programs: Path, model: Path, folder: Path, one_image: np.ndarray
) -> PeerServer:
    """Start a peer's server in a folder that is empty.

    Raises
    ------
    RuntimeError
        It does not start.
    """
    site = Site(programs, folder, free_port(), model)
    return PeerServer(
        peer.command(site),
        ENVIRONMENT
        | {
            "BENCHMARK_MODEL": str(model),
            "BENTOML_HOME": str(folder),
            "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        },
        folder,
        f"http://127.0.0.1:{site.port}{peer.form.path}",
        one_image,
        peer.form,
    )


def _run(command: list[str], failure: str) -> None:
    finished = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=INSTALL_TIMEOUT,
        env={**os.environ, **ENVIRONMENT},
    )
    if finished.returncode != 0:
        lines = (finished.stderr or finished.stdout).strip().splitlines()
        errors = [line for line in lines if "ERROR" in line.upper()] or lines
        raise RuntimeError(f"{failure}: {errors[-1] if errors else finished.returncode}")
