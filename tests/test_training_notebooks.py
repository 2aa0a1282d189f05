"""Training notebooks in Microsoft's style of four years, run through ``exec`` unmodified.

An ``Estimator`` (2019), a ``ScriptRunConfig`` on a cluster (2021), a ``command`` job of SDK v2, and
MLflow's autologging. They import nothing of this project.
"""

from __future__ import annotations

import importlib.util

import pytest
from plain_notebooks import run_notebook, write_notebook

pytestmark = pytest.mark.processes
pytest.importorskip("azureml.dataprep.rslex", reason="the data engine has no wheel for this Python")

UTILS = """
import gzip
import struct

import numpy as np


def load_data(filename, label=False):
    with gzip.open(filename) as stream:
        struct.unpack(">II", stream.read(8))
        if not label:
            stream.read(8)
        pixels = np.frombuffer(stream.read(), dtype=np.uint8)
        return pixels if label else pixels.reshape(-1, 784)
"""
TRAIN_OF_2019 = """
import argparse
import os

import numpy as np
from azureml.core import Run
from sklearn.externals import joblib
from sklearn.linear_model import LogisticRegression
from utils import load_data

parser = argparse.ArgumentParser()
parser.add_argument("--data-folder", type=str, dest="data_folder")
parser.add_argument("--regularization", type=float, dest="reg", default=0.01)
args = parser.parse_args()
print("Data folder:", args.data_folder)

X = load_data(os.path.join(args.data_folder, "train-images.gz"))[:1000] / 255.0
y = load_data(os.path.join(args.data_folder, "train-labels.gz"), True)[:1000]
run = Run.get_context()
clf = LogisticRegression(C=1.0 / args.reg, random_state=42, solver="liblinear")
clf.fit(X, y)
run.log("regularization rate", np.float(args.reg))
run.log("accuracy", np.float(clf.score(X, y)))
os.makedirs("outputs", exist_ok=True)
joblib.dump(value=clf, filename="outputs/sklearn_mnist_model.pkl")
"""
CONNECT_V1 = """
    import json
    import os

    import azureml.core
    from azureml.core import Experiment, Workspace

    ws = Workspace.from_config()
    print(ws.name, ws.location, ws.resource_group, sep="\\t")
    """
CLUSTER = """
    from azureml.core.compute import AmlCompute, ComputeTarget

    compute_name = os.environ.get("AML_COMPUTE_CLUSTER_NAME", "cpucluster")
    if compute_name in ws.compute_targets:
        compute_target = ws.compute_targets[compute_name]
    else:
        provisioning_config = AmlCompute.provisioning_configuration(
            vm_size=os.environ.get("AML_COMPUTE_CLUSTER_SKU", "STANDARD_D2_V2"),
            min_nodes=0,
            max_nodes=4,
        )
        compute_target = ComputeTarget.create(ws, compute_name, provisioning_config)
        compute_target.wait_for_completion(
            show_output=True, min_node_count=None, timeout_in_minutes=20
        )
    print(compute_target.get_status().serialize()["currentNodeCount"])
    """
RESULTS = """
    from azureml.widgets import RunDetails

    RunDetails(run).show()
    run.wait_for_completion(show_output=True)
    print(run.get_metrics(), run.get_file_names())
    model = run.register_model(
        model_name="sklearn_mnist", model_path="outputs/sklearn_mnist_model.pkl"
    )
    print("PROBE" + json.dumps({
        "metrics": run.get_metrics(), "model": model.id, "status": run.get_status(),
    }))
    """
ESTIMATOR = [
    CONNECT_V1,
    """
    import urllib.request

    data_folder = os.path.join(os.getcwd(), "data")
    os.makedirs(data_folder, exist_ok=True)
    for source, name in (
        ("train-images-idx3", "train-images"), ("train-labels-idx1", "train-labels"),
        ("t10k-images-idx3", "test-images"), ("t10k-labels-idx1", "test-labels"),
    ):
        urllib.request.urlretrieve(
            "http://yann.lecun.com/exdb/mnist/" + source + "-ubyte.gz",
            filename=os.path.join(data_folder, name + ".gz"),
        )
    ds = ws.get_default_datastore()
    print(ds.datastore_type, ds.account_name, ds.container_name)
    ds.upload(src_dir=data_folder, target_path="mnist", overwrite=True, show_progress=True)
    """,
    CLUSTER,
    """
    import shutil

    script_folder = os.path.join(os.getcwd(), "sklearn-mnist")
    os.makedirs(script_folder, exist_ok=True)
    shutil.copy("train.py", script_folder)
    shutil.copy("utils.py", script_folder)
    """,
    """
    from azureml.train.estimator import Estimator

    script_params = {"--data-folder": ds.path("mnist").as_mount(), "--regularization": 0.5}
    est = Estimator(
        source_directory=script_folder,
        script_params=script_params,
        compute_target=compute_target,
        entry_script="train.py",
        conda_packages=["scikit-learn"],
    )
    run = Experiment(workspace=ws, name="sklearn-mnist").submit(config=est)
    """,
    RESULTS,
    """
    from azureml.train.sklearn import SKLearn

    est = SKLearn(
        source_directory=script_folder,
        script_params={**script_params, "--regularization": 0.1},
        compute_target=compute_target,
        entry_script="train.py",
    )
    second = Experiment(workspace=ws, name="sklearn-mnist").submit(est)
    second.wait_for_completion(show_output=False)
    assert second.get_metrics()["regularization rate"] == 0.1
    """,
]
SCRIPT_RUN = [
    CONNECT_V1,
    CLUSTER,
    """
    from azureml.core import Dataset
    from azureml.opendatasets import MNIST

    data_folder = os.path.join(os.getcwd(), "data")
    os.makedirs(data_folder, exist_ok=True)
    mnist_file_dataset = MNIST.get_file_dataset()
    mnist_file_dataset.download(data_folder, overwrite=True)
    mnist_file_dataset = mnist_file_dataset.register(
        workspace=ws, name="mnist_opendataset", description="train and test set",
        create_new_version=True,
    )
    """,
    """
    from azureml.core.conda_dependencies import CondaDependencies
    from azureml.core.environment import Environment

    env = Environment("tutorial-env")
    env.python.conda_dependencies = CondaDependencies.create(
        pip_packages=["azureml-dataset-runtime[pandas,fuse]", "azureml-defaults"],
        conda_packages=["scikit-learn"],
    )
    env.register(workspace=ws)
    """,
    """
    %%writefile train_2021.py
    import argparse
    import glob
    import gzip
    import os

    import joblib
    import numpy as np
    from azureml.core import Run
    from sklearn.linear_model import LogisticRegression

    parser = argparse.ArgumentParser()
    parser.add_argument("--data-folder", type=str, dest="data_folder")
    parser.add_argument("--regularization", type=float, dest="reg", default=0.01)
    args = parser.parse_args()

    def load(name, offset):
        [path] = glob.glob(os.path.join(args.data_folder, "**", name), recursive=True)
        return np.frombuffer(gzip.open(path).read(), np.uint8, offset=offset)

    X = load("train-images-idx3-ubyte.gz", 16).reshape(-1, 784)[:1000] / 255.0
    y = load("train-labels-idx1-ubyte.gz", 8)[:1000]
    run = Run.get_context()
    clf = LogisticRegression(C=1.0 / args.reg, max_iter=50).fit(X, y)
    run.log("regularization rate", args.reg)
    run.log("accuracy", clf.score(X, y))
    joblib.dump(value=clf, filename="outputs/sklearn_mnist_model.pkl")
    """,
    """
    from azureml.core import ScriptRunConfig

    os.makedirs("script", exist_ok=True)
    os.replace("train_2021.py", "script/train.py")
    src = ScriptRunConfig(
        source_directory="script",
        script="train.py",
        arguments=["--data-folder", mnist_file_dataset.as_mount(), "--regularization", 0.5],
        compute_target=compute_target,
        environment=env,
    )
    run = Experiment(workspace=ws, name="Tutorial-sklearn-mnist").submit(config=src)
    """,
    RESULTS,
]
COMMAND_JOB = [
    """
    import json
    import os

    from azure.ai.ml import Input, MLClient, command
    from azure.ai.ml.constants import AssetTypes
    from azure.ai.ml.entities import AmlCompute, Data, Environment, Model
    from azure.identity import DefaultAzureCredential

    ml_client = MLClient(
        DefaultAzureCredential(), "<SUBSCRIPTION_ID>", "<RESOURCE_GROUP>", "<WORKSPACE_NAME>"
    )
    """,
    """
    cpu_compute_target = "cpu-cluster"
    try:
        ml_client.compute.get(cpu_compute_target)
    except Exception:
        print("Creating a new cpu compute target...")
        cluster = AmlCompute(
            name=cpu_compute_target, type="amlcompute", size="STANDARD_DS3_V2",
            min_instances=0, max_instances=4, idle_time_before_scale_down=180, tier="Dedicated",
        )
        ml_client.compute.begin_create_or_update(cluster).result()
    """,
    """
    os.makedirs("src", exist_ok=True)
    os.makedirs("digits", exist_ok=True)
    with open("digits/labels.csv", "w") as file:
        file.write("label\\n" + "\\n".join(str(n % 10) for n in range(50)))
    digits = ml_client.data.create_or_update(
        Data(name="labels", path="digits", type=AssetTypes.URI_FOLDER, description="labels")
    )
    """,
    """
    %%writefile src/main.py
    import argparse
    import os

    import mlflow
    import pandas as pd

    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=str)
    parser.add_argument("--rate", type=float)
    args = parser.parse_args()
    mlflow.start_run()
    labels = pd.read_csv(os.path.join(args.data, "labels.csv"))
    mlflow.log_metric("num_samples", labels.shape[0])
    mlflow.log_param("rate", args.rate)
    os.makedirs("outputs", exist_ok=True)
    with open("outputs/counts.txt", "w") as file:
        file.write(labels["label"].value_counts().to_string())
    mlflow.end_run()
    """,
    """
    env = Environment(
        name="labels-env",
        image="mcr.microsoft.com/azureml/openmpi4.1.0-ubuntu20.04:latest",
    )
    job = command(
        inputs={"data": Input(type=AssetTypes.URI_FOLDER, path=f"{digits.id}"), "rate": 0.25},
        code="./src/",
        command="python main.py --data ${{inputs.data}} --rate ${{inputs.rate}}",
        environment=env,
        compute=cpu_compute_target,
        experiment_name="count_labels",
        display_name="count_labels_of_digits",
    )
    returned_job = ml_client.jobs.create_or_update(job)
    ml_client.jobs.stream(returned_job.name)
    """,
    """
    import mlflow

    found = mlflow.get_run(returned_job.name).data
    ml_client.jobs.download(name=returned_job.name, download_path="got", output_name="default")
    model = ml_client.models.create_or_update(Model(
        path=f"azureml://jobs/{returned_job.name}/outputs/artifacts/paths/outputs/counts.txt",
        name="counts", type=AssetTypes.CUSTOM_MODEL,
    ))
    print("PROBE" + json.dumps({
        "status": ml_client.jobs.get(returned_job.name).status,
        "metrics": found.metrics, "params": found.params, "model": model.name,
        "files": sum(len(files) for _, _, files in os.walk("got")),
    }))
    """,
]
AUTOLOG = [
    """
    import json

    import mlflow
    from azureml.core import Experiment, ScriptRunConfig, Workspace

    ws = Workspace.from_config()
    mlflow.set_tracking_uri(ws.get_mlflow_tracking_uri())
    mlflow.set_experiment("diabetes-autolog")
    """,
    """
    import numpy as np
    from sklearn.linear_model import LogisticRegression

    mlflow.sklearn.autolog()
    X = np.random.default_rng(0).normal(size=(200, 4))
    y = (X[:, 0] > 0).astype(int)
    with mlflow.start_run() as here:
        LogisticRegression(C=0.5).fit(X, y)
    """,
    """
    import os

    os.makedirs("train", exist_ok=True)
    with open("train/train.py", "w") as file:
        file.write('''
    import mlflow
    import numpy as np
    from sklearn.linear_model import LogisticRegression

    mlflow.autolog()
    X = np.random.default_rng(1).normal(size=(200, 4))
    LogisticRegression(C=0.25).fit(X, (X[:, 1] > 0).astype(int))
    '''.replace("\\n    ", "\\n"))
    run = Experiment(ws, "diabetes-autolog").submit(
        ScriptRunConfig(source_directory="train", script="train.py", compute_target="local")
    )
    run.wait_for_completion(show_output=True)
    """,
    """
    found = mlflow.get_run(run.id)
    runs = mlflow.search_runs(experiment_names=["diabetes-autolog"], output_format="list")
    print("PROBE" + json.dumps({
        "notebook": mlflow.get_run(here.info.run_id).data.params["C"],
        "script": found.data.params["C"],
        "metrics": sorted(found.data.metrics), "files": run.get_file_names(),
        "runs": len(runs), "score": run.get_metrics()["training_accuracy_score"],
    }))
    """,
]


def run_plain(tmp_path, cells: list[str], kernel: str, sample_dir, **files: str):
    notebook = tmp_path / "tutorials" / "training.ipynb"
    named = {f"{name}.py": content for name, content in files.items()}
    write_notebook(notebook, cells, kernel, named)
    options = ["--bare", "--data-dir", str(sample_dir)]
    return run_notebook(notebook, tmp_path / "home", *options)


def check_training(printed: str, values: dict) -> None:
    assert values["status"] == "Completed"
    assert values["metrics"]["regularization rate"] == 0.5
    assert values["metrics"]["accuracy"] > 0.9
    assert values["model"] == "sklearn_mnist:1"
    assert "Streaming user_logs/std_log.txt" in printed


def test_estimator_of_2019_trains_unmodified(tmp_path, sample_dir):
    pytest.importorskip("azureml.train", reason="azureml-train-core is not installed")
    printed, values = run_plain(
        tmp_path, ESTIMATOR, "python36", sample_dir, utils=UTILS, train=TRAIN_OF_2019
    )
    check_training(printed, values)


@pytest.mark.skipif(
    importlib.util.find_spec("azureml.train") is not None, reason="azureml-train-core is installed"
)
def test_estimator_without_its_package_stops_with_the_command_that_installs_it(
    tmp_path, sample_dir
):
    cells = [CONNECT_V1, "from azureml.train.estimator import Estimator"]
    with pytest.raises(AssertionError, match="pip install azureml-train-core"):
        run_plain(tmp_path, cells, "python36", sample_dir)


def test_script_of_2021_trains_unmodified_on_a_cluster(tmp_path, sample_dir):
    check_training(*run_plain(tmp_path, SCRIPT_RUN, "python38-azureml", sample_dir))


def test_command_job_of_sdk_v2_runs_unmodified(tmp_path, sample_dir):
    pytest.importorskip("azure.ai.ml")
    pytest.importorskip("mlflow")
    _, values = run_plain(tmp_path, COMMAND_JOB, "python310-sdkv2", sample_dir)
    assert values == {
        "status": "Completed",
        "metrics": {"num_samples": 50.0},
        "params": {"rate": "0.25"},
        "model": "counts",
        "files": values["files"],
    }
    assert values["files"] >= 1


def test_autologging_notebook_runs_unmodified(tmp_path, sample_dir):
    pytest.importorskip("azureml.mlflow")
    _, values = run_plain(tmp_path, AUTOLOG, "python38-azureml", sample_dir)
    assert (values["notebook"], values["script"]) == ("0.5", "0.25")
    assert "training_accuracy_score" in values["metrics"]
    assert values["score"] > 0.8
    assert any(name.endswith("model/MLmodel") for name in values["files"])
    assert values["runs"] == 2
