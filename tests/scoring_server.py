"""Real scoring services for tests: Microsoft's inference server with a script, on loopback."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import joblib
import numpy as np
import pytest

from mnist_deploy.local.core.container import ProcessContainer

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
def serve(script: Path, model_dir: Path, folder: Path) -> Iterator[str]:
    """Serve a script in a container; the value is its scoring URI."""
    (folder / "app").mkdir(parents=True)
    shutil.copy(script, folder / "app" / "score.py")
    variables = {"AZUREML_ENTRY_SCRIPT": "score.py", "AZUREML_MODEL_DIR": str(model_dir)}
    with socket.create_server(("127.0.0.1", 0)) as listener:
        container = ProcessContainer(
            folder, listener, cpu_cores=1, memory_gb=2, environment=variables
        )
        try:
            assert container.start() is None, container.log_tail(100)
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/score"
        finally:
            container.stop()


@pytest.fixture(scope="session")
def digits_model(sample_data):
    """A classifier of digits and the images of the requests: (n, 784) in [0, 1]."""
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
    with serve(SCORE_SCRIPT, model_dir, tmp_path_factory.mktemp("service")) as uri:
        yield uri


@pytest.fixture(scope="session")
def json_only_uri(model_dir, tmp_path_factory) -> Iterator[str]:
    """A script that knows no IDX, served."""
    folder = tmp_path_factory.mktemp("json_only")
    (folder / "json_only.py").write_text(JSON_ONLY_SCRIPT)
    with serve(folder / "json_only.py", model_dir, folder) as uri:
        yield uri


@pytest.fixture(scope="session")
def digits(digits_model) -> tuple[np.ndarray, np.ndarray]:
    """uint8 pixels (n, 28, 28), and the labels that model.predict gives them."""
    model, X = digits_model
    pixels = np.rint(X * 255).astype(np.uint8)
    return pixels.reshape(-1, 28, 28), model.predict(pixels.reshape(-1, 784) / 255.0)
