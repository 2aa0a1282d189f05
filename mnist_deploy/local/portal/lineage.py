"""Lineage: the inputs of a run, the models registered from its outputs, and their services."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import msgspec
from msgspec import Struct

from ..core.artifacts import DATASTORE
from ..core.container_spec import ContainerSpec
from ..core.endpoints import Endpoint
from ..core.records import BatchDeployment, Data, Dataset, Model
from ..core.runs import ORIGIN, Run
from ..core.store import Store

OUTPUTS = "azureml"  # the first part of the paths of the outputs of batch jobs
REFERENCE = "reference-"  # prefix of inputs that are data references of SDK v1
LITERAL = "literal"

Shown = dict[str, Any]


class Identifier(Struct, rename="camel"):
    saved_id: str = ""


class InputDetails(Struct, rename="camel"):
    input_name: str = ""


class InputDataset(Struct, rename="camel"):
    """A data set in the lineage that SDK v1 sends."""

    identifier: Identifier = msgspec.field(default_factory=Identifier)
    input_details: InputDetails = msgspec.field(default_factory=InputDetails)


class LoggedDataset(Struct):
    name: str = ""
    digest: str = ""


class DatasetInput(Struct):
    """A data set logged by MLflow."""

    dataset: LoggedDataset = msgspec.field(default_factory=LoggedDataset)


def list_inputs(run: Run, store: Store) -> list[Shown]:
    """List the inputs of a run as ``input``, ``kind`` and ``name``, with the version, if any."""
    found = [*list_datasets(run, store), *list_logged_datasets(run)]
    known = {each["input"] for each in found}
    job_inputs = run.job.inputs if run.job else {}
    for name, job_input in job_inputs.items():
        if name not in known:
            paths = list(job_input.artifacts)
            named = find_asset_by_id(run, name) or find_asset_by_paths(paths, store)
            kind, title = named or ("path", ", ".join(map(without_origin, paths[:3])))
            found.append({"input": name.removeprefix(REFERENCE), "kind": kind, "name": title})
    return found


def list_datasets(run: Run, store: Store) -> Iterator[Shown]:
    names = {each.saved: f"{each.name}:{each.version}" for each in store.all(Dataset)}
    for sent in run.other.get("v1", {}).get("inputDatasets") or []:
        try:
            read = msgspec.convert(sent, InputDataset)
        except msgspec.ValidationError:  # the lineage of another client
            continue
        saved = read.identifier.saved_id
        name = names.get(saved, f"not registered ({saved})")
        yield {"input": read.input_details.input_name, "kind": "data set", "name": name}


def list_logged_datasets(run: Run) -> Iterator[Shown]:
    for sent in run.other.get("mlflow", {}).get("datasets") or []:
        try:
            read = msgspec.convert(sent, DatasetInput).dataset
        except msgspec.ValidationError:
            continue
        yield {"input": "", "kind": "data set of MLflow", "name": f"{read.name} ({read.digest})"}


def find_asset_by_id(run: Run, name: str) -> tuple[str, str] | None:
    """Return (kind, name) of the data asset or model that is an input in SDK v2."""
    properties = run.other.get("v2", {}).get("properties", {})
    uri = ((properties.get("inputs") or {}).get(name) or {}).get("uri")
    return parse_asset_id(uri)


def parse_asset_id(uri: Any) -> tuple[str, str] | None:
    """Return (kind, ``name:version``) of an id that ends with ``/data/NAME/versions/VERSION``."""
    parts = uri.rsplit("/", 4) if isinstance(uri, str) else []
    if len(parts) != 5 or parts[3] != "versions":
        return None
    kind = {"data": "data asset", "models": "model"}.get(parts[1].lower())
    return (kind, f"{parts[2]}:{parts[4]}") if kind else None


def find_asset_by_paths(paths: list[str], store: Store) -> tuple[str, str] | None:
    for data in store.all(Data):
        if [data.path] == paths:
            return "data asset", f"{data.name}:{data.version}"
    for model in store.all(Model):
        if list(model.artifacts) == paths:
            return "model", model.id
    return None


def without_origin(path: str) -> str:
    return path.removeprefix(f"{DATASTORE}/")


def list_literals(run: Run) -> dict[str, str]:
    """Return the literal inputs of SDK v2 and the parameters logged by MLflow."""
    inputs = run.other.get("v2", {}).get("properties", {}).get("inputs") or {}
    literals = {
        name: str(each.get("value"))
        for name, each in inputs.items()
        if each.get("jobInputType") == LITERAL
    }
    return literals | run.other.get("mlflow", {}).get("params", {})


def find_run_id(model: Model) -> str:
    """Return the id of the run that produced a model; empty if no run did."""
    run_id = model.other.get("v1", {}).get("runId")
    if run_id:
        return run_id
    for path in model.artifacts:
        origin, _, rest = path.partition("/")
        container = rest.partition("/")[0]
        if origin == ORIGIN:
            return container.removeprefix("dcid.")
        if origin == OUTPUTS:
            return container
    return ""


def group_models_by_run(store: Store) -> dict[str, list[Model]]:
    models: dict[str, list[Model]] = {}
    for model in store.all(Model):
        models.setdefault(find_run_id(model), []).append(model)
    return models


def list_users(
    deployed: Iterable[Endpoint], is_used: Callable[[ContainerSpec], bool]
) -> list[Shown]:
    """List the services and online endpoints with a container spec that `is_used` accepts."""
    return [
        {"kind": endpoint.kind, "name": endpoint.name}
        for endpoint in deployed
        if any(is_used(each.spec.container_spec) for each in list(endpoint.deployments.values()))
    ]


def list_model_users(model: Model, deployed: Iterable[Endpoint], store: Store) -> list[Shown]:
    """List the services, online endpoints and batch deployments that use a model."""
    online = list_users(deployed, lambda spec: model.id in [used.id for used in spec.models])
    batch = [
        {"kind": "batch", "name": each.name}
        for each in store.all(BatchDeployment)
        if parse_asset_id((each.settings.get("model") or {}).get("assetId")) == ("model", model.id)
    ]
    return online + batch
