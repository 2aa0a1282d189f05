"""What several test modules share: the sample, the genuine digits, a model trained on them."""

from __future__ import annotations

import gc
import os
import re
import signal
import sys
import threading
from pathlib import Path

import joblib
import matplotlib
import pytest

from mnist_deploy import local
from mnist_deploy.data import load_test_data, load_training_data, write_sample
from mnist_deploy.local.discovery import OWN_CERTIFICATE
from mnist_deploy.local.tls import create_server_context

matplotlib.use("Agg")
# Hundreds of processes, and each worker of pytest, would compile the modules for themselves.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"  # read when MLflow is imported
# Background jobs of a shell ignore SIGINT, and so would all processes that the tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)
# Timers of azureml-core call it. pytest applies its filters one by one, the first of which turns
# warnings into errors, and the threads of those timers run meanwhile.
threading.Thread.setDaemon = lambda thread, daemon: setattr(thread, "daemon", daemon)

GENUINE_DIR = Path(__file__).resolve().parents[2] / "shared" / "mnist"
# In a module whose tests all belong to another suite than the default one.
OTHER_SUITE = re.compile(
    r"^pytestmark = \[?\s*pytest\.mark\.(browser|faults|nightly|processes|slow)\b", re.MULTILINE
)


def pytest_ignore_collect(collection_path, config):
    """Spare the default suite, in each of its workers, the imports of modules without its tests."""
    default = config.option.markexpr in config.getini("addopts")
    if not default or collection_path.suffix != ".py":
        return None
    return bool(OTHER_SUITE.search(collection_path.read_text(encoding="utf-8"))) or None


def pytest_terminal_summary(terminalreporter):
    """The table of ``tests/faults``: what was tried, how often, what was lost."""
    reports = [each for several in terminalreporter.stats.values() for each in several]
    lines = [
        (fault["tried"], str(fault["times"]), "; ".join(fault["lost"][:3]) or fault["outcome"],
         fault["found"])
        for report in reports
        if getattr(report, "when", None) == "teardown"
        for name, fault in report.user_properties
        if name == "fault"
    ]  # fmt: skip
    if lines:
        terminalreporter.section("faults")
        for row in (("what was tried", "times", "lost", "what was seen"),
                    ("---", "---:", "---", "---"), *sorted(lines)):  # fmt: skip
            terminalreporter.write_line(f"| {' | '.join(row)} |")


@pytest.fixture
def interruptible():
    """Without garbage collection: it calls hypothesis back, where an interrupt would be lost."""
    gc.disable()
    yield
    gc.enable()


@pytest.fixture
def home(tmp_path):
    """The folder of a local workspace of this test's own."""
    folder = tmp_path / "home"
    yield folder
    local.stop(folder)


@pytest.fixture(scope="session")
def sample_dir(tmp_path_factory) -> Path:
    """A folder with the four files of the sample: read it, do not write there."""
    folder = tmp_path_factory.mktemp("sample")
    write_sample(folder)
    return folder


@pytest.fixture(scope="session")
def sample_data(sample_dir):
    """X_train, y_train, X_test, y_test of the sample: 4,000 and 1,000 images, read-only."""
    arrays = (*load_training_data(sample_dir), *load_test_data(sample_dir))
    for array in arrays:
        array.flags.writeable = False
    return arrays


@pytest.fixture(scope="session")
def genuine_dir() -> Path:
    """The folder of the genuine MNIST, next to the repository."""
    if not GENUINE_DIR.is_dir():
        pytest.skip("the genuine MNIST is not in ../shared/mnist, next to the repository")
    return GENUINE_DIR


@pytest.fixture(scope="session")
def genuine_model(genuine_dir, tmp_path_factory):
    """The tutorial's model, trained on the genuine 60,000 images at its first use."""
    import fcntl

    from mnist_deploy.part_one import fit_model

    folder = tmp_path_factory.getbasetemp()
    folder = folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder  # of all workers
    file = folder / "genuine_model.pkl"
    with open(folder / "genuine_model.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not file.exists():
            joblib.dump(fit_model(*load_training_data(genuine_dir), regularization=0.8), file)
        return joblib.load(file)


@pytest.fixture(scope="session")
def workspace_home(tmp_path_factory) -> Path:
    """The folder of the workspace `ws`, for $MNIST_DEPLOY_HOME."""
    return tmp_path_factory.mktemp("workspace") / "home"


@pytest.fixture(scope="session", autouse=True)
def _few_roots(tmp_path_factory):
    """Trust one root beside those of local workspaces: SDK v1 reads all roots at each request."""
    folder = tmp_path_factory.mktemp("roots")
    create_server_context(folder)
    trusted = Path(os.environ.get("REQUESTS_CA_BUNDLE") or os.devnull)
    workspaces = trusted.read_bytes().partition(OWN_CERTIFICATE)[2] if trusted.is_file() else b""
    bundle = folder / "bundle.pem"
    bundle.write_bytes((folder / "certificate.pem").read_bytes() + b"\n" + workspaces)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"):
            patch.setenv(name, str(bundle))
        yield


@pytest.fixture(scope="session")
def ws(workspace_home):
    """A genuine local workspace, one for all tests outside tests/local; at first it is empty."""
    yield local.connect(workspace_home)
    local.stop(workspace_home)
