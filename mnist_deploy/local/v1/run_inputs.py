"""Inputs of submitted runs: data sets and data references become inputs of a job."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from msgspec import Struct

from ..core.faults import NotSupported
from ..core.runs import JobInput
from .datasets import files_of_dataset, get_saved_dataset
from .datastores import artifact_of, check_datastore

# The SDK's placeholders for a data set and for a data reference.
CONSUMPTION = re.compile(r"DatasetConsumptionConfig:([\w-]+)")
REFERENCE = re.compile(r"\$AZUREML_DATAREFERENCE_(\w+)")
DOWNLOAD = "download"  # the script gets copies
DIRECT = "direct"  # the script reads a data set itself, by its id


class DatasetId(Struct):
    id: str | None = None


class DataPath(Struct, rename="camel"):
    datastore_name: str | None = None
    relative_path: str | None = None


class DataLocation(Struct, rename="camel"):
    dataset: DatasetId | None = None
    data_path: DataPath | None = None


class DataInput(Struct, rename="camel"):
    """A data set that a run consumes."""

    data_location: DataLocation | None = None
    mechanism: str | None = None
    environment_variable_name: str | None = None
    path_on_compute: str | None = None

    @property
    def dataset_id(self) -> str | None:
        location = self.data_location
        return location.dataset.id if location and location.dataset else None


class DataReference(Struct, rename="camel"):
    """A folder of a data store."""

    data_store_name: str = ""
    mode: str | None = None
    path_on_data_store: str | None = None


@dataclass
class RunInputs:
    """The inputs of a job, and their placeholders in its command and environment."""

    job_inputs: dict[str, JobInput] = field(default_factory=dict)
    variables: dict[str, str] = field(default_factory=dict)
    values: dict[str, str] = field(default_factory=dict)  # by the name of an input
    references: dict[str, str] = field(default_factory=dict)

    def fill(self, text: str) -> str:
        """Replace the SDK's placeholders in `text` by those of the job engine."""
        text = CONSUMPTION.sub(lambda found: self.values.get(found[1], found[0]), text)
        return REFERENCE.sub(lambda found: self.references.get(found[1], found[0]), text)


def resolve_inputs(
    data: Mapping[str, DataInput], references: Mapping[str, DataReference]
) -> RunInputs:
    """The inputs of a run's data sets and data references.

    Raises
    ------
    NotFound
        If a data set or a data store is missing.
    """
    inputs = RunInputs()
    declared = []
    for name, each in data.items():
        if not each.dataset_id:
            raise NotSupported(f"the input {name}: only data sets")
        variable = each.environment_variable_name or name
        mechanism = (each.mechanism or DIRECT).lower()
        if mechanism == DIRECT:
            value = each.dataset_id
            get_saved_dataset(each.dataset_id)
        else:
            files = files_of_dataset(each.dataset_id)
            inputs.job_inputs[name] = replace(files, is_copied=mechanism == DOWNLOAD)
            value = f"${{{{inputs.{name}}}}}"
        inputs.values[name] = inputs.variables[variable] = value
        declared.append(f"{variable}:{mechanism}")
    for name, reference in references.items():
        check_datastore(reference.data_store_name)
        path = artifact_of(reference.path_on_data_store or "")
        inputs.job_inputs[f"reference-{name}"] = JobInput((path,), path)
        value = f"${{{{inputs.reference-{name}}}}}"
        inputs.references[name] = value
        inputs.variables[f"AZUREML_DATAREFERENCE_{name}"] = value
    if declared:
        inputs.variables["AZUREML_DATASET_ENVIRONMENT_VARS"] = ",".join(declared)
    return inputs
