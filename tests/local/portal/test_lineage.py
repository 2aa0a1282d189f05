"""Lineage of runs: data sets and inputs of three clients, registered models, their users."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import pytest

from mnist_deploy.local.core.records import BatchDeployment, Data, Dataset, Model
from mnist_deploy.local.core.runs import Job, JobInput, Run, Runs
from mnist_deploy.local.portal.lineage import (
    find_run_id,
    group_models_by_run,
    list_inputs,
    list_literals,
    list_model_users,
    parse_asset_id,
)

ARM = "/subscriptions/s/resourceGroups/g/providers/Microsoft.MachineLearningServices/workspaces/w"


def change(runs: Runs, run: Run, **fields: object) -> Run:
    return runs.change(run.id, lambda run: dataclasses.replace(run, **fields))


def test_registered_data_set_of_sdk_v1_is_named_with_its_version(runs, run):
    runs.store.add(Dataset("digits", 0, "2026", "saved-1"))
    sent = [
        {"identifier": {"savedId": saved}, "inputDetails": {"inputName": name}}
        for saved, name in (("saved-1", "train"), ("saved-2", "test"))
    ]
    run = change(runs, run, other={"v1": {"inputDatasets": sent}})
    assert list_inputs(run, runs.store) == [
        {"input": "train", "kind": "data set", "name": "digits:1"},
        {"input": "test", "kind": "data set", "name": "not registered (saved-2)"},
    ]


def test_inputs_of_sdk_v2_are_data_assets_models_and_paths(runs, run):
    for path in ("datastore/digits/f", "datastore/model/f"):
        runs.store.write(path, [b""])
    runs.store.put(Data("mnist", "3", "2026", "uri_folder", "datastore/digits"))
    runs.store.add(Model("net", 0, ("datastore/model",), "2026"))
    properties = {
        "inputs": {
            "data": {"jobInputType": "uri_folder", "uri": f"{ARM}/data/mnist/versions/2"},
            "rate": {"jobInputType": "literal", "value": 0.5},
        }
    }
    paths = {"data": "datastore/digits", "same": "datastore/digits", "net": "datastore/model",
             "reference-raw": "datastore/raw"}  # fmt: skip
    inputs = {name: JobInput((path,), path) for name, path in paths.items()}
    run = change(runs, run, job=Job((), inputs=inputs), other={"v2": {"properties": properties}})
    assert [tuple(each.values()) for each in list_inputs(run, runs.store)] == [
        ("data", "data asset", "mnist:2"),
        ("same", "data asset", "mnist:3"),
        ("net", "model", "net:1"),
        ("raw", "path", "raw"),
    ]
    assert list_literals(run) == {"rate": "0.5"}


def test_data_set_and_parameters_of_mlflow_are_listed(runs, run):
    logged = [{"dataset": {"name": "frame", "digest": "d1"}}]
    run = change(runs, run, other={"mlflow": {"datasets": logged, "params": {"rate": "1"}}})
    [frame] = list_inputs(run, runs.store)
    assert frame["name"] == "frame (d1)"
    assert list_literals(run) == {"rate": "1"}


@pytest.mark.parametrize("sent", [{"identifier": 5}, {"inputDetails": {"inputName": []}}])
def test_malformed_lineage_of_a_client_is_left_out(runs, run, sent):
    run = change(runs, run, other={"v1": {"inputDatasets": [sent]},
                                   "mlflow": {"datasets": [{"dataset": 5}]}})  # fmt: skip
    assert list_inputs(run, runs.store) == []


@pytest.mark.parametrize("uri", [None, 5, "", "mnist:1", f"{ARM}/codes/c/versions/1", "/versions/"])
def test_other_text_is_not_parsed_as_an_asset_id(uri):
    assert parse_asset_id(uri) is None


def test_model_belongs_to_the_run_that_registered_it_or_wrote_its_files(runs, run):
    for path in (f"{run.artifacts}/outputs/m", "azureml/step/score/m", "LocalUpload/c/f"):
        runs.store.write(path, [b"m"])
    added = [
        runs.store.add(Model(name, 0, (path,), "2026", other=other))
        for name, path, other in (
            ("by-id", "LocalUpload/c/f", {"v1": {"runId": "r1"}}),
            ("by-path", f"{run.artifacts}/outputs/m", {}),
            ("by-step", "azureml/step/score/m", {}),
            ("elsewhere", "LocalUpload/c/f", {}),
        )
    ]
    assert [find_run_id(model) for model in added] == ["r1", "r1", "step", ""]
    grouped = group_models_by_run(runs.store)
    assert [model.name for model in grouped["r1"]] == ["by-path", "by-id"]


def test_services_and_batch_deployments_that_use_a_model_are_listed(runs):
    model = Model("net", 2, (), "2026")
    settings = {"model": {"assetId": f"{ARM}/models/net/versions/2", "referenceType": "Id"}}
    runs.store.put(BatchDeployment("end/blue", "2026", settings=settings))
    runs.store.put(BatchDeployment("end/green", "2026", settings={"model": None}))
    container_spec = SimpleNamespace(models=[model])
    deployment = SimpleNamespace(spec=SimpleNamespace(container_spec=container_spec))
    deployed = [SimpleNamespace(kind="service", name="svc", deployments={"svc": deployment})]
    assert list_model_users(model, deployed, runs.store) == [
        {"kind": "service", "name": "svc"},
        {"kind": "batch", "name": "end/blue"},
    ]
