"""Training code in Microsoft's style, unmodified, under ``exec`` and without a network."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from recorded_network import in_recorded_network

from mnist_deploy.local.discovery import CLOUD
from mnist_deploy.tutorial import LOCAL_WORKSPACE, tutorial_file

pytestmark = pytest.mark.processes
pytest.importorskip("azureml.dataprep.rslex", reason="the data engine has no wheel for this Python")

# The calls of the tutorial's part one of 2020: the data set, a script of scikit-learn 0.22, a run.
PROGRAM = '''
import os
from azureml.core import Experiment, ScriptRunConfig, Workspace
from azureml.opendatasets import MNIST
from azureml.widgets import RunDetails

ws = Workspace.from_config()
experiment = Experiment(workspace=ws, name="sklearn-mnist")
digits = MNIST.get_file_dataset()
digits.download(os.path.join(os.getcwd(), "data"), overwrite=True)
digits = digits.register(workspace=ws, name="mnist_opendataset", create_new_version=True)

os.makedirs("scripts", exist_ok=True)
with open("scripts/train.py", "w") as file:
    file.write("""
import argparse, glob, gzip, os
import joblib
import numpy as np
from azureml.core import Run
from sklearn.linear_model import LogisticRegression

parser = argparse.ArgumentParser()
parser.add_argument("--data-folder", type=str, dest="folder")
parser.add_argument("--regularization", type=float, dest="reg")
options = parser.parse_args()

def load(name, offset):
    [path] = glob.glob(os.path.join(options.folder, "**", name), recursive=True)
    return np.frombuffer(gzip.open(path).read(), np.uint8, offset=offset)

y = load("train-labels-idx1-ubyte.gz", 8)[:1000]
X = load("train-images-idx3-ubyte.gz", 16).reshape(-1, 784)[:1000] / 255.0
run = Run.get_context()
model = LogisticRegression(
    C=1.0 / options.reg, solver="liblinear", multi_class="auto", random_state=42
)
model.fit(X, y)
run.log("regularization rate", np.float(options.reg))
run.log("accuracy", np.float(model.score(X, y)))
os.makedirs("outputs", exist_ok=True)
joblib.dump(value=model, filename="outputs/sklearn_mnist_model.pkl")
""")
source = ScriptRunConfig(
    source_directory="scripts",
    script="train.py",
    arguments=["--data-folder", digits.as_mount(), "--regularization", 0.5],
    compute_target="local",
)
run = experiment.submit(config=source)
RunDetails(run).show()
run.wait_for_completion(show_output=True)
print("METRICS", run.get_metrics())
model = run.register_model("sklearn_mnist", model_path="outputs/sklearn_mnist_model.pkl")
print("MODEL", model.id)
'''


# What `exec` asks whether there is a network, by design: the host of the genuine data set.
DATA_HOST = urlsplit(str(LOCAL_WORKSPACE["data_host"])).hostname


def run_recorded(
    command: list[str], folder: Path, **variables: str
) -> tuple[str, list[str] | None]:
    """Run a command in a workspace of its own: what it printed, and the hosts that it asked.

    None for the hosts where this machine has no network namespaces.
    """
    file = folder / "hosts"
    recorded = in_recorded_network(command, file)
    done = subprocess.run(
        recorded or command,
        cwd=folder,
        env={**os.environ, "MNIST_DEPLOY_HOME": str(folder / "home"), **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=900,  # on a busy machine
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout, file.read_text().split() if recorded else None


def test_recorder_finds_names_and_addresses(tmp_path):
    program = """
import socket
for host, port in (("dc.services.visualstudio.com", 443), ("20.1.2.3", 443), ("127.0.0.1", 9)):
    try:
        socket.create_connection((host, port), 3)
    except OSError:
        pass
"""
    _, asked = run_recorded([sys.executable, "-c", program], tmp_path)
    assert asked in (["20.1.2.3:443", "dc.services.visualstudio.com"], None)


def test_part_one_of_2020_runs_unmodified_and_asks_no_other_host(tmp_path, sample_dir):
    (tmp_path / "part_one.py").write_text(PROGRAM)
    command = [sys.executable, "-m", "mnist_deploy.local", "exec", "--bare"]
    command += ["--data-dir", str(sample_dir), "--", sys.executable, "part_one.py"]
    printed, asked = run_recorded(command, tmp_path)
    assert "'regularization rate': 0.5" in printed
    assert "MODEL sklearn_mnist:1" in printed
    for bridged in ("multi_class='auto'", "solver='liblinear'", "numpy.float was removed"):
        assert bridged in printed
    assert set(asked or ()) <= {DATA_HOST}


def test_notebook_of_part_one_asks_no_host_but_the_source_of_the_data(tmp_path, sample_dir):
    """`download_mnist` looks for the whole database where it has found a sample.

    The notebook runs as if a process connected with SDK v2 had started it: the inherited name of
    that process's cloud would make the SDK look for it at Azure.
    """
    notebook = tutorial_file("notebooks/img-classification-part1-training.ipynb")
    command = [sys.executable, "-m", "mnist_deploy", "--notebook", str(notebook)]
    command += ["--data-dir", str(sample_dir)]
    _, asked = run_recorded(command, tmp_path, AZUREML_CURRENT_CLOUD=f"{CLOUD}-40000")
    assert set(asked or ()) <= {DATA_HOST}
