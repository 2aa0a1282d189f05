"""Notebooks in the style of the tutorial's editions, run through ``exec`` unmodified.

They import nothing of this project: ``Workspace.from_config()``, a ``utils.py`` in their folder,
kernels and packages of their year.
"""

from __future__ import annotations

import re

import joblib
import numpy as np
import pytest
from plain_notebooks import run_notebook, write_notebook

from mnist_deploy.data import load_test_data, load_training_data
from mnist_deploy.part_one import fit_model

pytestmark = pytest.mark.slow

UTILS = """
import gzip
import struct

import numpy as np


def load_data(filename, label=False):
    with gzip.open(filename) as stream:
        _, count = struct.unpack(">II", stream.read(8))
        width = 1
        if not label:
            height, width = struct.unpack(">II", stream.read(8))
            width *= height
        return np.frombuffer(stream.read(), dtype=np.uint8).reshape(count, width)
"""

FILES = {"utils.py": UTILS}

IMPORTS = """
%matplotlib inline
import numpy as np
import matplotlib.pyplot as plt
import azureml.core
from azureml.core import Workspace
from azureml.core.model import Model

print("Azure ML SDK Version: ", azureml.core.VERSION)
"""

ACI = """
from azureml.core.webservice import AciWebservice

aciconfig = AciWebservice.deploy_configuration(
    cpu_cores=1,
    memory_gb=1,
    tags={"data": "MNIST", "method": "sklearn"},
    description="Predict MNIST with sklearn",
)
"""

CONFUSION = """
from sklearn.metrics import confusion_matrix

conf_mx = confusion_matrix(y_test, y_hat)
print(conf_mx)
print("Overall accuracy:", np.average(y_hat == y_test))

norm_conf_mx = conf_mx / conf_mx.sum(axis=1, keepdims=True)
np.fill_diagonal(norm_conf_mx, 0)
fig = plt.figure(figsize=(8, 5))
ax = fig.add_subplot(111)
fig.colorbar(ax.matshow(norm_conf_mx, cmap=plt.cm.bone))
plt.savefig("conf.png")
plt.show()
"""

SAMPLES = """
import json

n = 30
sample_indices = np.random.permutation(X_test.shape[0])[0:n]
test_samples = bytes(json.dumps({"data": X_test[sample_indices].tolist()}), encoding="utf8")
result = service.run(input_data=test_samples)
if isinstance(result, str):
    result = json.loads(result)

plt.figure(figsize=(20, 1))
for i, s in enumerate(sample_indices):
    wrong = y_test[s] != result[i]
    plt.subplot(1, n, i + 1)
    plt.axhline("")
    plt.axvline("")
    plt.text(x=10, y=-10, s=result[i], fontsize=18, color="red" if wrong else "black")
    plt.imshow(X_test[s].reshape(28, 28), cmap=plt.cm.gray if wrong else plt.cm.Greys)
plt.show()
"""

RAW_REQUEST = """
import requests

random_index = np.random.randint(0, len(X_test) - 1)
input_data = '{"data": [' + str(X_test[random_index].tolist()) + "]}"
resp = requests.post(
    service.scoring_uri, input_data, headers={"Content-Type": "application/json"}
)
print("POST to url", service.scoring_uri)
print("label:", y_test[random_index])
print("prediction:", resp.text)
"""

# Appended to each notebook: the values that the tests check.
PROBE = """
from azureml.core.webservice import Webservice

print("PROBE" + json.dumps({
    "workspace": ws.name,
    "accuracy": float(np.average(y_hat == y_test)),
    "agree": int(np.sum(np.array(result) == y_hat[sample_indices])),
    "raw": [resp.status_code, resp.text, int(np.array(y_hat)[random_index])],
    "services": [each.name for each in Webservice.list(ws)],
}))
"""

EDITION_2020 = [
    IMPORTS,
    """
    %%writefile score.py
    import json
    import os

    import joblib
    import numpy as np

    def init():
        global model
        folder = os.getenv("AZUREML_MODEL_DIR")
        model = joblib.load(os.path.join(folder, "sklearn_mnist_model.pkl"))

    def run(raw_data):
        data = np.array(json.loads(raw_data)["data"])
        return model.predict(data).tolist()
    """,
    ACI,
    """
    %%time
    from azureml.core.environment import Environment
    from azureml.core.model import InferenceConfig
    from azureml.core.webservice import Webservice

    ws = Workspace.from_config()
    model = Model(ws, "sklearn_mnist")

    myenv = Environment.get(workspace=ws, name="tutorial-env", version="1")
    inference_config = InferenceConfig(entry_script="score.py", environment=myenv)
    service = Model.deploy(
        workspace=ws,
        name="sklearn-mnist-svc3",
        models=[model],
        inference_config=inference_config,
        deployment_config=aciconfig,
    )
    service.wait_for_deployment(show_output=True)
    """,
    "print(service.scoring_uri)",
    """
    import os
    from azureml.core import Dataset
    from azureml.opendatasets import MNIST

    data_folder = os.path.join(os.getcwd(), "data")
    os.makedirs(data_folder, exist_ok=True)
    mnist_file_dataset = MNIST.get_file_dataset()
    mnist_file_dataset.download(data_folder, overwrite=True)
    """,
    """
    import glob
    from utils import load_data

    def find(name):
        return glob.glob(os.path.join(data_folder, "**/" + name), recursive=True)[0]

    X_test = load_data(find("t10k-images-idx3-ubyte.gz"), False) / 255.0
    y_test = load_data(find("t10k-labels-idx1-ubyte.gz"), True).reshape(-1)
    """,
    """
    import json

    test = bytes(json.dumps({"data": X_test.tolist()}), encoding="utf8")
    y_hat = np.array(service.run(input_data=test))
    """,
    CONFUSION,
    SAMPLES,
    RAW_REQUEST,
    "service.delete()",
]

EDITION_2018 = [
    IMPORTS,
    """
    import os

    ws = Workspace.from_config()
    model = Model(ws, "sklearn_mnist")
    model.download(target_dir=".")
    os.stat("./sklearn_mnist_model.pkl")
    """,
    """
    from utils import load_data

    X_test = load_data("./data/test-images.gz", False) / 255.0
    y_test = load_data("./data/test-labels.gz", True).reshape(-1)
    """,
    """
    import pickle
    from sklearn.externals import joblib

    clf = joblib.load("./sklearn_mnist_model.pkl")
    y_hat = clf.predict(X_test)
    """,
    CONFUSION,
    """
    %%writefile score.py
    import json
    import numpy as np
    from sklearn.externals import joblib
    from sklearn.linear_model import LogisticRegression
    from azureml.core.model import Model

    def init():
        global model
        model = joblib.load(Model.get_model_path("sklearn_mnist"))

    def run(raw_data):
        data = np.array(json.loads(raw_data)["data"])
        return json.dumps(model.predict(data).tolist())
    """,
    """
    from azureml.core.conda_dependencies import CondaDependencies

    myenv = CondaDependencies()
    myenv.add_conda_package("scikit-learn")
    with open("myenv.yml", "w") as f:
        f.write(myenv.serialize_to_string())
    """,
    ACI,
    """
    %%time
    from azureml.core.image import ContainerImage
    from azureml.core.webservice import Webservice

    image_config = ContainerImage.image_configuration(
        execution_script="score.py", runtime="python", conda_file="myenv.yml"
    )
    service = Webservice.deploy_from_model(
        workspace=ws,
        name="sklearn-mnist-svc",
        deployment_config=aciconfig,
        models=[model],
        image_config=image_config,
    )
    service.wait_for_deployment(show_output=True)
    """,
    SAMPLES,
    RAW_REQUEST,
    "service.delete()",
]

# The folder of the notebook has a model of 2020, and its environment pins packages of 2020.
REGISTER_OLD_PICKLE = """
from azureml.core.conda_dependencies import CondaDependencies
from azureml.core.environment import Environment

ws = Workspace.from_config()
Model.register(ws, model_path="sklearn_mnist_model.pkl", model_name="sklearn_mnist")
env = Environment("tutorial-env")
env.python.conda_dependencies = CondaDependencies.create(
    python_version="3.6.2", pip_packages=["azureml-defaults"],
    conda_packages=["scikit-learn==0.22.1"],
)
env.register(workspace=ws)
"""


def check_values(values: dict) -> None:
    assert values["workspace"] == "local"
    assert values["accuracy"] > 0.88
    assert values["agree"] == 30
    status, text, expected = values["raw"]
    assert status == 200
    assert re.sub(r'[\[\]" ]', "", text) == str(expected)
    assert values["services"] == []


def test_notebook_of_2020_runs_unmodified(tmp_path, sample_dir):
    notebook = tmp_path / "tutorials" / "part2.ipynb"
    write_notebook(notebook, [*EDITION_2020, PROBE], "python38-azureml", FILES)
    printed, values = run_notebook(notebook, tmp_path / "home", "--data-dir", str(sample_dir))
    check_values(values)
    assert "environment:" not in printed  # model, environment and this Python agree
    assert (notebook.parent / "conf.png").stat().st_size > 1000
    assert not (tmp_path / ".azureml").exists()


def test_notebook_of_2018_runs_unmodified(tmp_path, sample_dir):
    notebook = tmp_path / "tutorials" / "part2.ipynb"
    write_notebook(notebook, [*EDITION_2018, PROBE], "python36", FILES)
    data = notebook.parent / "data"
    data.mkdir()
    for published, name in (("images-idx3", "images"), ("labels-idx1", "labels")):
        (data / f"test-{name}.gz").write_bytes(
            (sample_dir / f"t10k-{published}-ubyte.gz").read_bytes()
        )
    printed, values = run_notebook(notebook, tmp_path / "home", "--data-dir", str(sample_dir))
    check_values(values)
    assert "environment: python: required" in printed  # CondaDependencies() requests 3.8
    assert "scikit-learn has removed sklearn.externals.joblib" in printed


def test_pickle_of_2020_is_deployed_and_differing_versions_are_reported(
    tmp_path, sample_dir, monkeypatch
):
    notebook = tmp_path / "course" / "lesson.ipynb"
    cells = [IMPORTS, REGISTER_OLD_PICKLE, *EDITION_2020[1:], PROBE]
    write_notebook(notebook, cells, "kernel-of-the-course", FILES)
    model = fit_model(*load_training_data(sample_dir))
    del model.n_features_in_  # scikit-learn 0.22 had no such attribute
    with monkeypatch.context() as patch:
        patch.setattr("sklearn.base.__version__", "0.22.1")
        joblib.dump(model, notebook.parent / "sklearn_mnist_model.pkl")
    printed, values = run_notebook(
        notebook, tmp_path / "home", "--bare", "--data-dir", str(sample_dir)
    )
    check_values(values)
    images, labels = load_test_data(sample_dir)
    predicted = np.argmax(images @ model.coef_.T + model.intercept_, axis=1)
    assert values["accuracy"] == np.mean(predicted == labels)
    assert re.search(r"environment: scikit-learn: required ==0\.22\.1, installed \d", printed)
    assert re.search(r"environment: python: required ==3\.6\.2\S*, installed 3\.\d+", printed)
