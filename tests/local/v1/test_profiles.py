"""`Model.profile` through the genuine azureml-core: containers that are started and measured.

The fields are those of ``azureml.core.profile.ModelProfile``.
"""

from __future__ import annotations

import json
import re
import uuid
from pathlib import Path

import pytest
from polling import wait_until
from sdk_polling import fast_polls
from weights_service import make_inference_config

from mnist_deploy.local.core.records import Profile
from mnist_deploy.local.v1.profiles import serialize_profile

pytestmark = pytest.mark.processes
pytest.importorskip("azureml.dataprep.rslex", reason="the data engine has no wheel for this Python")

ADD = """
import json

def init():
    pass

def run(raw):
    row = json.loads(raw)["data"]
    if row[0] == 2:
        raise ValueError("two is no input")
    return sum(row)
"""
RAISE_IN_INIT = "def init():\n    raise ValueError('no weights')\ndef run(raw): ..."
RAISE_IN_RUN = "def init(): ...\ndef run(raw):\n    raise ValueError('no row fits')"
GROW = """
import time

def init():
    global kept
    kept = []

def run(raw):
    kept.append(bytearray(300 << 20))
    time.sleep(5)
"""


@pytest.fixture(scope="module", autouse=True)
def _quick_profile_polls():
    from azureml.core import profile

    with fast_polls(profile):
        yield


@pytest.fixture(scope="module")
def rows(local_ws, tmp_path_factory):
    """The data set of five requests, as "Deploy machine learning models" (v1) makes one."""
    return make_rows(
        local_ws, tmp_path_factory, *(json.dumps({"data": [n, 1, 1]}) for n in range(5))
    )


def make_rows(ws, tmp_path_factory, *lines: str, separator: str = "\n"):
    from azureml.core import Dataset
    from azureml.data.dataset_type_definitions import PromoteHeadersBehavior

    folder = tmp_path_factory.mktemp("rows")
    (folder / "rows.txt").write_text("".join(f"{line}\n" for line in lines))
    target = f"rows-{uuid.uuid4().hex[:8]}"
    store = ws.get_default_datastore()
    store.upload(str(folder), target_path=target, show_progress=False)
    table = Dataset.Tabular.from_delimited_files(
        (store, f"{target}/rows.txt"),
        separator=separator,
        header=PromoteHeadersBehavior.NO_HEADERS,
    )
    return table.register(ws, target)


def measure(ws, script: str, rows, **options):
    """A profile that has ended, without the warnings that the SDK makes of its error."""
    from azureml.core import Model

    name = f"profile-{uuid.uuid4().hex[:8]}"
    configuration = make_inference_config(Path("app"), script)
    profile = Model.profile(ws, name, [], configuration, input_dataset=rows, **options)
    with pytest.warns(UserWarning, match="Model Profiling operation"):
        profile.wait_for_completion()
    return profile


@pytest.fixture(scope="module")
def measured(local_ws, rows, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("measured"))
        return measure(local_ws, ADD, rows, cpu=1.5, memory_in_gb=0.5, description="sums")


def test_profile_has_latencies_cpu_and_memory(measured):
    found = measured.serialize()
    assert found["state"] == "Succeeded"
    assert (found["requestedCpu"], found["requestedMemoryInGB"]) == (1.5, 0.5)
    assert found["totalQueries"] >= 5
    assert 0 < found["latencyPercentile50InMs"] <= found["latencyPercentile999InMs"] < 60_000
    assert found["measuredQueriesPerSecond"] > 0
    assert 0.01 < found["maxUtilizedMemoryInGB"] < 0.5


def test_failed_rows_are_counted_and_reported_as_an_issue(measured):
    found = measured.serialize()
    assert found["successRate"] == pytest.approx(80, abs=5)
    assert found["successQueries"] < found["totalQueries"]
    assert "requests failed, the first one with status 500" in measured.error["message"]


def test_recommendations_are_rounded_up_from_measurements(measured):
    assert measured.recommended_cpu - 0.1 < max(measured.max_utilized_cpu, 0.1)
    assert measured.recommended_cpu >= measured.max_utilized_cpu
    assert measured.recommended_memory >= 1.25 * measured.max_utilized_memory
    assert measured.recommended_memory - 0.1 < max(1.25 * measured.max_utilized_memory, 0.1)


def test_profile_is_found_by_name_and_names_can_be_reused(measured, local_ws, call, mms):
    from azureml.core.profile import ModelProfile

    found = ModelProfile(local_ws, measured.name)
    assert found.serialize() == measured.serialize()
    assert found.description == "sums"
    assert found.created_time == measured.created_time
    listed = call("GET", f"{mms}/profiles", params={"description": "sums"}).json()["value"]
    assert [each["name"] for each in listed] == [measured.name]


def test_missing_profile_is_named(local_ws):
    from azureml.core.profile import ModelProfile

    with pytest.raises(Exception, match="There is no profile nothing"):
        ModelProfile(local_ws, "nothing")


@pytest.mark.parametrize(
    ("script", "message", "logged"),
    [
        (RAISE_IN_INIT, "did not start: .*ValueError: no weights", "no weights"),
        (RAISE_IN_RUN, "None of .* requests succeeded.*status 500", "no row fits"),
        (GROW, r"used .* GB of memory, more than the 0.3 GB", "is killed"),
    ],
    ids=["init", "run", "memory"],
)
def test_failing_script_fails_the_profile_with_its_reason(
    local_ws, rows, call, script, message, logged
):
    profile = measure(local_ws, script, rows, memory_in_gb=0.3)
    details = profile.get_details()
    assert details["state"] == "Failed"
    assert re.search(message, details["error"]["message"], re.S)
    assert "latencyPercentile50InMs" not in details
    log = call("GET", "/" + details["errorLogsUri"].partition("://")[2].partition("/")[2])
    assert logged in log.text


def test_data_set_with_two_columns_fails_the_profile(local_ws, tmp_path_factory, call, mms):
    """The SDK checks the columns before it sends the request; other clients do not."""
    from azureml.core.webservice.container_resource_requirements import (
        ContainerResourceRequirements,
    )

    two_columns = make_rows(local_ws, tmp_path_factory, "a,b", "c,d", separator=",")
    body = make_inference_config(Path("app"), ADD).build_profile_payload(
        "columns",
        workspace=local_ws,
        models=[],
        dataset_id=two_columns.id,
        container_resource_requirements=ContainerResourceRequirements(1, 0.5),
    )
    assert call("POST", f"{mms}/profiles", json=body).status_code == 202
    found: dict = {}

    def has_ended() -> bool:
        [profile] = call("GET", f"{mms}/profiles", params={"name": "columns"}).json()["value"]
        found.update(profile)
        return profile["state"] != "Running"

    wait_until(has_ended, seconds=120)
    assert found["state"] == "Failed"
    assert found["error"]["code"] == "InvalidDataset"
    assert "has 2 columns: one is expected" in found["error"]["message"]


@pytest.mark.parametrize(
    ("change", "status", "message"),
    [
        ({"inputDatasetId": "unknown"}, 404, "no data set unknown"),
        ({"name": "a b"}, 400, "not a valid profile name"),
        ({"containerResourceRequirements": {"cpu": 4}}, 400, "cpu is 4: expected 0.1 to 3.5"),
        ({"containerResourceRequirements": {"memoryInGB": 16}}, 400, "expected 0.1 to 15"),
    ],
)
def test_invalid_profile_request_is_rejected_with_its_reason(
    rows, call, mms, change, status, message
):
    body = {"name": "p", "inputDatasetId": rows.id, "environmentImageRequest": {}} | change
    answer = call("POST", f"{mms}/profiles", json=body)
    assert answer.status_code == status
    assert message in answer.json()["message"]


def test_unfinished_profile_has_no_measurements():
    profile = Profile("p", 1, "2026-01-01T00:00:00+00:00", "d", ("m:1",), 1.0, 0.5)
    shown = serialize_profile(profile)
    assert shown["state"] == "Running"
    assert "recommendedCpu" not in shown
