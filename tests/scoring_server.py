"""Real scoring services for tests: Microsoft's inference server with a script, on loopback."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import joblib
import numpy as np
import pytest
import requests

SCORE_SCRIPT = Path(__file__).resolve().parents[1] / "score.py"

# What a reader of the tutorial's first editions has: JSON only, and a list encoded twice.
JSON_ONLY_SCRIPT = """
import json, os
import joblib
import numpy as np

def init():
    global model
    model = joblib.load(os.path.join(os.environ["AZUREML_MODEL_DIR"], "sklearn_mnist_model.pkl"))

def run(raw_data):
    return json.dumps(model.predict(np.array(json.loads(raw_data)["data"])).tolist())
"""


@contextmanager
def serve(script: Path, model_dir: Path, log: Path) -> Iterator[str]:
    """Serve a script as a container does; the value is its scoring URI."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        command = [sys.executable, "-m", "gunicorn", "--bind", f"fd://{listener.fileno()}"]
        command += ["--worker-class", "gthread", "--threads", "4", "--keep-alive", "60"]
        command += ["--no-control-socket", "azureml_inference_server_http.server.entry:app"]
        with log.open("wb") as output:
            process = subprocess.Popen(
                command,
                stdout=output,
                stderr=subprocess.STDOUT,
                pass_fds=[listener.fileno()],
                cwd=script.parent,
                env=os.environ
                | {
                    "AML_APP_ROOT": str(script.parent),
                    "AZUREML_ENTRY_SCRIPT": script.name,
                    "AZUREML_MODEL_DIR": str(model_dir),
                    "OMP_NUM_THREADS": "1",
                },
            )
    try:
        # The socket was listened on before the process began: the answer waits for its start.
        health = requests.get(f"http://127.0.0.1:{port}/", timeout=60)
        assert health.status_code == 200, log.read_text()
        yield f"http://127.0.0.1:{port}/score"
    finally:
        process.send_signal(signal.SIGQUIT)  # at once, whatever connections are open
        process.wait(timeout=30)


@pytest.fixture(scope="session")
def digits_model(sample_data):
    """A classifier of digits and the images it is asked about: (n, 784) in [0, 1]."""
    from sklearn.linear_model import LogisticRegression

    X_train, y_train, X_test, _ = sample_data
    model = LogisticRegression(max_iter=500, tol=0.01).fit(X_train[::4], y_train[::4])
    return model, X_test


@pytest.fixture(scope="session")
def model_dir(digits_model, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    joblib.dump(digits_model[0], folder / "sklearn_mnist_model.pkl")
    return folder


@pytest.fixture(scope="session")
def scoring_uri(model_dir, tmp_path_factory) -> Iterator[str]:
    """The project's own score.py, served."""
    with serve(SCORE_SCRIPT, model_dir, tmp_path_factory.mktemp("service") / "log.txt") as uri:
        yield uri


@pytest.fixture(scope="session")
def json_only_uri(model_dir, tmp_path_factory) -> Iterator[str]:
    """A script that knows no IDX, served."""
    folder = tmp_path_factory.mktemp("json_only")
    (folder / "score.py").write_text(JSON_ONLY_SCRIPT)
    with serve(folder / "score.py", model_dir, folder / "log.txt") as uri:
        yield uri


@pytest.fixture(scope="session")
def digits(digits_model) -> tuple[np.ndarray, np.ndarray]:
    """uint8 pixels (n, 28, 28), and the labels that model.predict gives them."""
    model, X = digits_model
    pixels = np.rint(X * 255).astype(np.uint8)
    return pixels.reshape(-1, 28, 28), model.predict(pixels.reshape(-1, 784) / 255.0)
