"""Command jobs and data assets through the genuine azure-ai-ml, with real processes."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest
from polling import wait_until
from weights_service import WORKSPACE

pytestmark = [pytest.mark.processes, pytest.mark.usefixtures("quick_job_polls")]

WAIT = 60.0  # seconds that a job may take on a busy machine
SCRIPT = """
import os
import sys
data, rate, model = sys.argv[1:]
print("rate", rate, sorted(os.listdir(data)), os.environ["COLOUR"])
with open(os.path.join(model, "weights.txt"), "w") as file:
    file.write("1 10 100")
with open("outputs/report.txt", "w") as file:
    file.write("fine")
"""


@pytest.fixture(scope="module")
def compute(client):
    from azure.ai.ml.entities import AmlCompute

    client.compute.begin_create_or_update(
        AmlCompute(name="job-cluster", size="STANDARD_D2_V2", max_instances=2)
    ).result()
    return "job-cluster"


def make_job(line: str, script: str = SCRIPT, **options):
    from azure.ai.ml import command

    Path("source").mkdir(exist_ok=True)
    Path("source/train.py").write_text(script)
    options.setdefault("compute", "local")
    return command(code="source", command=line, environment="azureml:none@latest", **options)


@pytest.fixture(scope="module")
def job_environment(client):
    from azure.ai.ml.entities import Environment

    name = f"job-{uuid.uuid4().hex[:8]}"
    created = client.environments.create_or_update(
        Environment(name=name, image="mcr.microsoft.com/azureml/openmpi4.1.0-ubuntu22.04")
    )
    return f"{created.name}:{created.version}"


def wait_for_status(client, name: str, *statuses: str) -> str:
    def reached() -> str:
        status = client.jobs.get(name).status
        return status if status in statuses else ""

    return wait_until(reached, WAIT)


@pytest.fixture(scope="module")
def trained(client, compute, job_environment, tmp_path_factory):
    """A job that has completed, and what was streamed of it."""
    import contextlib
    import io

    from azure.ai.ml import Input, Output

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("job"))
        Path("digits").mkdir()
        Path("digits/train.gz").write_text("images")
        job = make_job(
            "python train.py ${{inputs.digits}} ${{inputs.rate}} ${{outputs.model}}",
            compute=compute,
            inputs={"digits": Input(type="uri_folder", path="digits"), "rate": 0.5},
            outputs={"model": Output(type="uri_folder")},
            environment_variables={"COLOUR": "red"},
            experiment_name="jobs",
            display_name="the first",
            tags={"edition": "v2"},
        )
        job.environment = job_environment
        created = client.jobs.create_or_update(job)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        client.jobs.stream(created.name)
    return client.jobs.get(created.name), printed.getvalue()


def test_job_gets_inputs_and_streams_its_log(trained):
    job, printed = trained
    assert "rate 0.5 ['train.gz'] red\n" in printed
    assert (job.status, job.display_name, job.tags) == ("Completed", "the first", {"edition": "v2"})


def test_outputs_of_a_job_can_be_downloaded(client, trained):
    job, _ = trained
    client.jobs.download(job.name, download_path="got", all=True)
    found = {path.name for path in Path("got").rglob("*") if path.is_file()}
    assert {"report.txt", "weights.txt", "std_log.txt"} <= found


@pytest.mark.parametrize(
    ("output", "file"), [("model", "weights.txt"), ("artifacts/paths/outputs", "report.txt")]
)
def test_output_of_a_job_can_be_registered_as_a_model(client, trained, output, file):
    from azure.ai.ml.entities import Model

    job, _ = trained
    path = f"azureml://jobs/{job.name}/outputs/{output}"
    name = f"trained-{uuid.uuid4().hex[:8]}"
    model = client.models.create_or_update(Model(name=name, path=path, type="custom_model"))
    client.models.download(name, model.version, download_path="got")
    assert list(Path("got").rglob(file))


def test_job_is_listed_as_a_run_of_sdk_v1(trained, local_ws):
    from azureml.core import Run

    job, _ = trained
    run = Run.get(local_ws, job.name)
    assert (run.experiment.name, run.get_status()) == ("jobs", "Completed")


def test_failed_job_raises_with_its_traceback(client, compute, job_environment):
    job = make_job("python train.py", "raise ValueError('no digits')", compute=compute)
    job.environment = job_environment
    created = client.jobs.create_or_update(job)
    with pytest.raises(Exception, match="ValueError: no digits"):
        client.jobs.stream(created.name)


def test_job_is_canceled(client, compute, job_environment):
    job = make_job("python train.py", "import time; time.sleep(300)", compute=compute)
    job.environment = job_environment
    created = client.jobs.create_or_update(job)
    wait_for_status(client, created.name, "Running")
    client.jobs.begin_cancel(created.name)
    assert wait_for_status(client, created.name, "Canceled", "Failed") == "Canceled"


def test_data_asset_is_the_input_of_a_job(client, compute, job_environment):
    from azure.ai.ml import Input
    from azure.ai.ml.entities import Data

    name = f"digits-{uuid.uuid4().hex[:8]}"
    Path("one.csv").write_text("7\n")
    data = client.data.create_or_update(Data(name=name, path="one.csv", type="uri_file"))
    assert client.data.get(name, data.version).type == "uri_file"
    assert name in [each.name for each in client.data.list()]
    job = make_job(
        "cat ${{inputs.table}}",
        compute=compute,
        inputs={"table": Input(type="uri_file", path=f"azureml:{name}:{data.version}")},
    )
    job.environment = job_environment
    created = client.jobs.create_or_update(job)
    assert wait_for_status(client, created.name, "Completed", "Failed") == "Completed"
    client.jobs.download(created.name, download_path="got")
    [log] = Path("got").rglob("std_log.txt")
    assert log.read_text() == "7\n"


@pytest.mark.parametrize(
    ("kind", "named"), [("Sweep", "sweep"), ("Pipeline", "pipeline"), ("AutoML", "AutoML")]
)
def test_unsupported_job_types_are_rejected_by_name(call, kind, named):
    answer = call("PUT", f"{WORKSPACE}/jobs/other", json={"properties": {"jobType": kind}})
    assert answer.status_code == 501
    assert f"does not support {named} jobs" in answer.json()["error"]["message"]
