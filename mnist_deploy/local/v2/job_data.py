"""Converts the inputs and outputs of command jobs for the job engine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from msgspec import Struct

from ..core.faults import Invalid, NotSupported
from ..core.records import Data, Model
from ..core.runs import ORIGIN, JobInput
from ..rest import store
from .data_assets import find_data_path
from .models import parse_model_uri
from .resources import ASSET_ID

LITERAL = "literal"
PATH_TYPES = ("uri_file", "uri_folder", "mlflow_model", "custom_model", "mltable")
COPIED = "Download"  # the mode of an input that the job may change


class JobInputRequest(Struct, rename="camel"):
    job_input_type: str
    value: Any = None
    uri: str | None = None
    mode: str | None = None


class JobOutputRequest(Struct, rename="camel"):
    job_output_type: str = "uri_folder"
    uri: str | None = None
    mode: str | None = None
    asset_name: str | None = None


@dataclass(frozen=True)
class ResolvedInputs:
    """Inputs that are files or folders, and the values of literal inputs."""

    files: dict[str, JobInput]
    literals: dict[str, str]

    def __iter__(self) -> Any:
        return iter((self.files, self.literals))


def resolve_inputs(inputs: Mapping[str, JobInputRequest]) -> ResolvedInputs:
    """Return the inputs of a job.

    Raises
    ------
    NotFound
        If a data asset or a model is missing.
    NotSupported
        For data outside this workspace.
    """
    files, literals = {}, {}
    for name, requested in inputs.items():
        if requested.job_input_type == LITERAL:
            literals[name] = "" if requested.value is None else str(requested.value)
        elif requested.job_input_type in PATH_TYPES:
            files[name] = find_input(name, requested)
        else:
            raise NotSupported(f"the input {name} of type {requested.job_input_type}")
    return ResolvedInputs(files, literals)


def find_input(name: str, requested: JobInputRequest) -> JobInput:
    uri = requested.uri or ""
    asset = ASSET_ID.fullmatch(uri)
    if asset is None:
        path = find_data_path(uri)
    elif asset[1].lower() == "data":
        path = store().get(Data, asset[2], asset[3]).path
    elif asset[1].lower() == "models":
        path = store().get(Model, asset[2], asset[3]).path
    else:
        raise Invalid("input", f"The input {name} is {uri!r}: expected data, a model or a path.")
    is_file = store().artifact(path) is not None
    root = path.rpartition("/")[0] if is_file else path
    return JobInput((path,), root, is_file, is_copied=requested.mode == COPIED)


def resolve_outputs(job: str, outputs: Mapping[str, JobOutputRequest]) -> dict[str, str]:
    """Return the artifact path to which each named output is uploaded."""
    paths = {}
    for name, requested in outputs.items():
        if requested.asset_name:
            raise NotSupported(f"the output {name} with a name: register it after the job")
        if requested.uri:
            paths[name] = parse_model_uri(requested.uri)
            if not paths[name].startswith(f"{ORIGIN}/"):
                raise NotSupported(f"the output {name} with a path outside of the job's artifacts")
        else:
            paths[name] = f"{ORIGIN}/dcid.{job}/{name}"
    return paths
