"""What several test modules share: the sample, the genuine digits, a model trained on them."""

from __future__ import annotations

import gc
import signal
from pathlib import Path

import matplotlib
import pytest

from mnist_deploy import local
from mnist_deploy.data import load_test_data, load_training_data, write_sample

matplotlib.use("Agg")

GENUINE_DIR = Path(__file__).resolve().parents[2] / "shared" / "mnist"


@pytest.fixture
def interruptible():
    """Ctrl-C as it is in the foreground, here and in what is started: jobs of a shell ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    gc.disable()  # hypothesis is called back by it, and there an interrupt would be lost
    yield
    gc.enable()
    signal.signal(signal.SIGINT, before)


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
def genuine_model(genuine_dir):
    """The tutorial's model, trained on the genuine 60,000 images: half a minute, for slow tests."""
    from mnist_deploy.part_one import fit_model

    return fit_model(*load_training_data(genuine_dir), regularization=0.8)


@pytest.fixture(scope="session")
def workspace_home(tmp_path_factory) -> Path:
    """The folder of the workspace `ws`, for $MNIST_DEPLOY_HOME."""
    return tmp_path_factory.mktemp("workspace") / "home"


@pytest.fixture(scope="session")
def ws(workspace_home):
    """A genuine local workspace, one for all tests outside tests/local; at first it is empty."""
    yield local.connect(workspace_home)
    local.stop(workspace_home)
