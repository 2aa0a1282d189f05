"""Batch endpoints through the genuine azure-ai-ml, with real processes.

Azure: "Deploy and run models on batch endpoints", "Author scoring scripts for batch deployments".
"""

from __future__ import annotations

import contextlib
import io
import os
import uuid
from pathlib import Path

import pytest
from azure.ai.ml import Input, Output
from azure.ai.ml.constants import BatchDeploymentOutputAction
from azure.ai.ml.constants._endpoint import EndpointInvokeFields
from azure.ai.ml.entities import (
    AmlCompute,
    BatchEndpoint,
    BatchRetrySettings,
    CodeConfiguration,
    Data,
    ModelBatchDeployment,
    ModelBatchDeploymentSettings,
    ResourceConfiguration,
)
from azure.core.exceptions import HttpResponseError, ResourceNotFoundError
from polling import is_running, wait_until

pytestmark = [pytest.mark.processes, pytest.mark.usefixtures("quick_job_polls")]

ENDPOINT = "weigh-files"
JSON = "application/json"
WAIT = 60.0  # seconds that a job may take on a busy machine
SCRIPT = """
import os
import time
from pathlib import Path

import pandas as pd

def init():
    global weights
    weights = Path(os.environ["AZUREML_MODEL_DIR"], "weights.txt").read_text().split()
    print("init in", os.getpid(), os.environ["COLOUR"])

def run(mini_batch):
    rows = []
    for path in map(Path, mini_batch):
        text = path.read_text()
        if text == "poison":
            raise ValueError(f"{path.name} cannot be weighed")
        if text.startswith("deadly") and not os.path.exists(os.environ["MARK"]):
            Path(os.environ["MARK"]).touch()
            os._exit(3)
        text = text.removeprefix("deadly ")
        if text == "slow":
            Path(os.environ["MARK"]).write_text(str(os.getpid()))
            time.sleep(300)
        rows.append([path.name, int(text) * int(weights[1])])
    if os.environ["COLOUR"] == "list":
        Path(os.environ["AZUREML_BI_OUTPUT_PATH"], rows[0][0] + ".out").write_text("own")
        return rows
    return pd.DataFrame(rows)
"""


@pytest.fixture(scope="module")
def mark(tmp_path_factory):
    return tmp_path_factory.mktemp("mark") / "mark"


@pytest.fixture(scope="module")
def deploy_batch(client, model, environment, mark, tmp_path_factory):
    """Deploy the script under a new name, which it returns, with the settings of a test."""
    client.compute.begin_create_or_update(
        AmlCompute(name="batch-cluster", size="STANDARD_D2_V2", max_instances=2)
    ).result()
    client.batch_endpoints.begin_create_or_update(
        BatchEndpoint(name=ENDPOINT, description="weighs", tags={"a": "b"})
    ).result()
    code = tmp_path_factory.mktemp("batch") / "code"
    code.mkdir()
    (code / "weigh.py").write_text(SCRIPT)

    def deploy(colour: str = "frame", **settings) -> str:
        variables = {"COLOUR": colour, "MARK": str(mark)}
        options = {"instance_count": settings.pop("instance_count", 1)}
        settings = {"mini_batch_size": 2, "max_concurrency_per_instance": 2} | settings
        deployment = ModelBatchDeployment(
            name=f"d-{uuid.uuid4().hex[:8]}",
            endpoint_name=ENDPOINT,
            model=model,
            environment=environment,
            code_configuration=CodeConfiguration(code=str(code), scoring_script="weigh.py"),
            compute="batch-cluster",
            resources=ResourceConfiguration(**options),
            settings=ModelBatchDeploymentSettings(environment_variables=variables, **settings),
        )
        return client.batch_deployments.begin_create_or_update(deployment).result().name

    yield deploy
    client.batch_endpoints.begin_delete(ENDPOINT).result()
    with pytest.raises(ResourceNotFoundError):
        client.batch_endpoints.get(ENDPOINT)


@pytest.fixture(scope="module")
def deployed(deploy_batch):
    """A deployment that several tests invoke."""
    return deploy_batch()


@pytest.fixture
def files(tmp_path):
    """A folder of 7 files, one of them in a folder below it."""
    folder = tmp_path / "files"
    (folder / "below").mkdir(parents=True)
    for number in range(6):
        (folder / f"{number}.txt").write_text(str(number))
    (folder / "below" / "6.txt").write_text("6")
    return folder


def invoke(client, deployment, path, kind="uri_folder", **options):
    return client.batch_endpoints.invoke(
        endpoint_name=ENDPOINT,
        deployment_name=deployment,
        input=Input(type=kind, path=str(path)),
        **options,
    )


def finish(client, job) -> str:
    """Stream a job to its end; what was printed."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        client.jobs.stream(job.name)
    return printed.getvalue()


def read_scores(client, job, name="predictions.csv") -> list[str]:
    client.jobs.download(job.name, download_path="got", output_name="score")
    [file] = Path("got").rglob(name)
    return sorted(file.read_text().splitlines())


@pytest.fixture(autouse=True)
def _fresh(tmp_path, monkeypatch, mark):
    # The SDK keeps the deployment of one invocation for the next one, which names none.
    monkeypatch.setattr(EndpointInvokeFields, "DEFAULT_HEADER", {"Content-Type": JSON})
    monkeypatch.chdir(tmp_path)
    mark.unlink(missing_ok=True)


ALL = [f"{number}.txt {10 * number}" for number in range(7)]


def test_folder_is_scored_and_rows_are_appended(client, deploy_batch, files):
    name = deploy_batch(output_file_name="weights.csv")
    job = invoke(client, name, files)
    printed = finish(client, job)
    assert "init in" in printed
    assert "7 files scored, 0 failed" in printed
    assert client.jobs.get(job.name).status == "Completed"
    assert read_scores(client, job, "weights.csv") == ALL
    assert job.name in [each.name for each in client.batch_endpoints.list_jobs(ENDPOINT)]
    listed = client.batch_deployments.list_jobs(ENDPOINT, name=name)
    assert [(each.name, each.status) for each in listed] == [(job.name, "Completed")]
    assert job.name in [each.name for each in client.jobs.list()]


def test_summary_only_keeps_the_files_of_the_script_alone(client, deploy_batch, files):
    name = deploy_batch("list", output_action=BatchDeploymentOutputAction.SUMMARY_ONLY)
    job = invoke(client, name, files)
    finish(client, job)
    client.jobs.download(job.name, download_path="got", output_name="score")
    assert {path.suffix for path in Path("got").rglob("*") if path.is_file()} == {".out"}


def test_elements_of_a_list_are_written_as_lines(client, deploy_batch, files):
    job = invoke(client, deploy_batch("list"), files / "3.txt", "uri_file")
    finish(client, job)
    assert read_scores(client, job) == ["['3.txt', 30]"]


def test_data_asset_is_scored_by_the_default_deployment(client, deploy_batch, files):
    name = deploy_batch()
    endpoint = client.batch_endpoints.get(ENDPOINT)
    endpoint.defaults = {"deployment_name": name}
    client.batch_endpoints.begin_create_or_update(endpoint).result()
    assert client.batch_endpoints.get(ENDPOINT).defaults.deployment_name == name
    data = client.data.create_or_update(
        Data(name=f"files-{uuid.uuid4().hex[:8]}", path=str(files), type="uri_folder")
    )
    client.batch_endpoints.invoke(
        endpoint_name=ENDPOINT, input=Input(type="uri_folder", path=data.id), job_name=data.name
    )
    job = client.jobs.get(data.name)
    finish(client, job)
    assert read_scores(client, job) == ALL


def test_path_of_the_data_store_and_several_inputs_are_scored(client, deploy_batch, files):
    data = client.data.create_or_update(
        Data(name=f"files-{uuid.uuid4().hex[:8]}", path=str(files), type="uri_folder")
    )
    inputs = {
        "one": Input(type="uri_folder", path=data.path),
        "two": Input(type="uri_file", path=str(files / "3.txt")),
    }
    job = client.batch_endpoints.invoke(
        endpoint_name=ENDPOINT, deployment_name=deploy_batch(), inputs=inputs
    )
    printed = finish(client, job)
    assert "inputs: 2 are scored; on Azure a model deployment accepts one" in printed
    assert read_scores(client, job) == sorted([*ALL, "3.txt 30"])


def test_results_of_the_child_job_are_downloaded(client, deploy_batch, files):
    """As in Microsoft's notebook mnist-batch: the child job has the output."""
    job = invoke(client, deploy_batch(), files)
    finish(client, job)
    [child] = client.jobs.list(parent_job_name=job.name)
    assert child.creation_context.last_modified_at > child.creation_context.created_at
    assert read_scores(client, child) == ALL


def request_output(kind: str, path: str, store: str = "azureml://datastores/workspaceblobstore"):
    return {"outputs": {"score": Output(type=kind, path=f"{store}/paths/{path}")}}


def override_output(path: str, store: str = "azureml:workspaceblobstore"):
    names = {"output_dataset.datastore_id": store, "output_dataset.path": f"/{path}/"}
    return {"params_override": [{name: value} for name, value in names.items()]}


@pytest.mark.parametrize("form", ["uri_file", "uri_folder", "output_dataset", "short name"])
def test_results_are_written_to_the_requested_path_once(client, deploy_batch, files, form):
    """how-to-access-data-batch-endpoints-jobs, "Create jobs with data outputs"; the overrides:
    how-to-use-batch-model-deployments, "Configure the output location".
    """
    path, store = f"batch-jobs/{uuid.uuid4().hex}", client.datastores.get_default()
    options = {
        "uri_file": request_output("uri_file", f"{path}/predictions.csv", store.id),
        "uri_folder": request_output("uri_folder", f"{path}/"),
        "output_dataset": override_output(path, f"azureml:{store.id}"),
        "short name": override_output(path),
    }[form]
    if form == "short name":  # of which the SDK itself makes the path of a file
        options["params_override"].append({"output_file_name": "predictions.csv"})
    name = deploy_batch()
    job = invoke(client, name, files, **options)
    finish(client, job)
    assert read_scores(client, job) == ALL
    data = client.data.create_or_update(
        Data(name="written", type="uri_file",
             path=f"azureml://datastores/workspaceblobstore/paths/{path}/predictions.csv")
    )  # fmt: skip
    assert data.path.endswith(f"{path}/predictions.csv")
    options = request_output("uri_folder", path) if form == "uri_folder" else options
    with pytest.raises(HttpResponseError, match="exists in the data store already"):
        invoke(client, name, files, **options)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (request_output("uri_folder", "x", "azureml://datastores/other"), "the data store other"),
        (request_output("uri_folder", "x/../y"), "must stay in its folder"),
        (request_output("uri_file", "x"), "not the path of a file in a folder"),
        (request_output("mltable", "x/y"), "Expected Output"),
        ({"outputs": request_output("uri_folder", "a")["outputs"]
                     | {"b": Output(type="uri_folder", path="azureml://datastores/x/paths/b")}},
         "2 outputs were requested"),
        ({"params_override": [{"compute.instance_type": "x"}]}, "with compute.instance_type"),
        ({"params_override": [{"compute.target": "azureml:missing"}]}, "no compute missing"),
        ({"params_override": [{"mini_batch_size": 0}]}, "miniBatchSize"),
        ({"params_override": [{"output_file_name": "a/b"}]}, "expected a file name"),
        ({"params_override": [{"dataset": "x"}]}, "a data set of SDK v1"),
    ],
)  # fmt: skip
def test_invalid_invocation_is_rejected_with_its_reason(client, deployed, files, options, reason):
    with pytest.raises(HttpResponseError, match=reason):
        invoke(client, deployed, files / "3.txt", "uri_file", **options)


@pytest.mark.parametrize(
    ("wanted", "reason"),
    [
        ({"type": "uri_folder", "path": "https://a.blob.core.windows.net/b"}, "are uploaded"),
        ({"type": "string", "default": "x"}, "of type Literal; only uri_file"),
        ({"type": "uri_file", "path": "azureml:typed:1"}, "is a folder, pass uri_folder"),
        ({"type": "uri_folder", "path": "azureml://datastores/workspaceblobstore/paths/none"},
         "no file at"),
    ],
)  # fmt: skip
def test_invalid_input_is_rejected_with_its_reason(client, deployed, files, wanted, reason):
    client.data.create_or_update(Data(name="typed", version="1", path=str(files)))
    with pytest.raises(HttpResponseError, match=reason):
        client.batch_endpoints.invoke(
            endpoint_name=ENDPOINT, deployment_name=deployed, inputs={"a": Input(**wanted)}
        )


def test_settings_are_overridden_for_one_job(client, deployed, files):
    """how-to-use-batch-model-deployments, "Overwrite deployment configuration for each job"."""
    (files / "5.txt").write_text("poison")
    overrides = {"mini_batch_size": "1", "compute.instance_count": "50",
                 "retry_settings.max_retries": 0, "error_threshold": 1}  # fmt: skip
    options = {"params_override": [{name: value} for name, value in overrides.items()]}
    job = invoke(client, deployed, files, **options)
    printed = finish(client, job)
    assert "request 100 processes" in printed
    assert "attempt 1:" in printed
    assert "attempt 2:" not in printed
    assert "6 files scored, 1 failed" in printed
    assert client.batch_deployments.get(deployed, ENDPOINT).mini_batch_size == 2


def test_rest_invocation_with_pascal_case_names_is_accepted(client, call, deployed, files):
    """The body of the article's tab REST has names in Pascal case."""
    data = client.data.create_or_update(Data(name="rest", path=str(files)))
    url = client.batch_endpoints.get(ENDPOINT).scoring_uri
    url = "/" + url.split("/", 3)[3]
    body = {"InputData": {"heart_data": {"JobInputType": "UriFolder", "Uri": data.id}}}
    headers = {"azureml-model-deployment": deployed}
    answer = call("POST", url, json={"properties": body}, headers=headers)
    assert answer.status_code == 201, answer.text
    job = client.jobs.get(answer.json()["name"])
    finish(client, job)
    assert read_scores(client, job) == ALL


def test_failed_files_up_to_the_error_threshold_are_ignored(client, deploy_batch, files):
    (files / "5.txt").write_text("poison")
    settings = {"mini_batch_size": 1, "retry_settings": BatchRetrySettings(max_retries=1)}
    job = invoke(client, deploy_batch(error_threshold=1, **settings), files)
    printed = finish(client, job)
    assert "ValueError: 5.txt cannot be weighed" in printed
    assert "attempt 2:" in printed
    assert "6 files scored, 1 failed" in printed
    assert read_scores(client, job) == [row for row in ALL if not row.startswith("5")]


def test_job_fails_above_the_error_threshold(client, deploy_batch, files):
    (files / "5.txt").write_text("poison")
    name = deploy_batch(error_threshold=0, retry_settings=BatchRetrySettings(max_retries=0))
    job = invoke(client, name, files)
    with pytest.raises(Exception, match="2 files failed, but error_threshold allows 0"):
        finish(client, job)
    assert client.jobs.get(job.name).status == "Failed"


def test_mini_batch_of_a_killed_worker_is_scored_again(client, deploy_batch, files):
    (files / "2.txt").write_text("deadly 2")
    job = invoke(client, deploy_batch(), files)
    printed = finish(client, job)
    assert "its worker process ended (exit status 3)" in printed
    assert read_scores(client, job) == ALL


def test_mini_batch_is_abandoned_after_its_time_out(client, deploy_batch, files):
    (files / "0.txt").write_text("slow")
    retry = BatchRetrySettings(max_retries=0, timeout=1)
    job = invoke(client, deploy_batch(mini_batch_size=1, retry_settings=retry), files)
    printed = finish(client, job)
    assert "it took longer than 1 s" in printed
    assert "6 files scored, 1 failed" in printed


def test_canceled_job_leaves_no_process(client, deploy_batch, files, mark):
    (files / "0.txt").write_text("slow")
    retry = BatchRetrySettings(timeout=300)
    job = invoke(client, deploy_batch(retry_settings=retry), files)
    wait_until(lambda: mark.exists() and mark.read_text(), WAIT)
    client.jobs.begin_cancel(job.name)
    wait_until(lambda: client.jobs.get(job.name).status == "Canceled", WAIT)
    assert not is_running(int(mark.read_text()))


def test_more_processes_than_cores_are_reported(client, deploy_batch, files):
    job = invoke(client, deploy_batch(instance_count=50), files)
    printed = finish(client, job)
    cores = os.cpu_count()
    assert f"request 100 processes; this machine has {cores} cores" in printed
    assert printed.count("init in") <= cores


def test_deployment_and_endpoint_are_returned_as_requested(client, deploy_batch):
    name = deploy_batch(mini_batch_size=3, error_threshold=5, output_file_name="a.csv")
    found = client.batch_deployments.get(name, ENDPOINT)
    assert (found.mini_batch_size, found.error_threshold, found.output_file_name) == (3, 5, "a.csv")
    assert found.output_action == "append_row"
    assert name in [each.name for each in client.batch_deployments.list(ENDPOINT)]
    assert client.batch_endpoints.get(ENDPOINT).tags == {"a": "b"}
    assert ENDPOINT in [each.name for each in client.batch_endpoints.list()]
    client.batch_deployments.begin_delete(name, ENDPOINT).result()
    with pytest.raises(ResourceNotFoundError):
        client.batch_deployments.get(name, ENDPOINT)


def test_deployment_without_code_of_another_model_is_rejected(client, deploy_batch, model):
    deployment = ModelBatchDeployment(
        name="no-code",
        endpoint_name=ENDPOINT,
        model=model,
        compute="batch-cluster",
        settings=ModelBatchDeploymentSettings(mini_batch_size=1),
    )
    with pytest.raises(HttpResponseError, match="only of a model of type mlflow_model"):
        client.batch_deployments.begin_create_or_update(deployment).result()


def test_endpoint_without_default_deployment_is_rejected(client, deploy_batch, files):
    client.batch_endpoints.begin_create_or_update(BatchEndpoint(name="no-default")).result()
    with pytest.raises(Exception, match="has no default deployment"):
        client.batch_endpoints.invoke(
            endpoint_name="no-default", input=Input(type="uri_folder", path=str(files))
        )
    client.batch_endpoints.begin_delete("no-default").result()
