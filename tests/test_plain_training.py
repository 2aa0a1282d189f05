"""Training code in Microsoft's style, unmodified, under ``exec`` and without a network."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

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


def in_a_network_of_its_own(command: list[str]) -> list[str]:
    """`command` where only the loopback can be reached, if this machine allows that."""
    if not (shutil.which("unshare") and shutil.which("ip")):
        return command
    alone = ["unshare", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]
    allowed = subprocess.run([*alone, "true"], capture_output=True, check=False).returncode == 0
    return [*alone, *command] if allowed else command


def test_part_one_of_2020_runs_unmodified_without_a_network(tmp_path, sample_dir):
    (tmp_path / "part_one.py").write_text(PROGRAM)
    command = [sys.executable, "-m", "mnist_deploy.local", "exec", "--bare"]
    command += ["--data-dir", str(sample_dir), "--", sys.executable, "part_one.py"]
    done = subprocess.run(
        in_a_network_of_its_own(command),
        cwd=tmp_path,
        env={**os.environ, "MNIST_DEPLOY_HOME": str(tmp_path / "home")},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert "'regularization rate': 0.5" in done.stdout
    assert "MODEL sklearn_mnist:1" in done.stdout
    for bridged in ("multi_class='auto'", "solver='liblinear'", "numpy.float is no more"):
        assert bridged in done.stdout
