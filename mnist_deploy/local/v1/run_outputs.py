"""Output data sets of submitted runs: `OutputFileDatasetConfig` as folders of a job.

With `as_mount` as with `as_upload`, the folder is uploaded to the data store after the process of
the run has ended. Then azureml-core registers the data set, see `programs.register_outputs`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from msgspec import Struct

from ..core.artifacts import check_path
from ..core.faults import Invalid, NotSupported
from ..core.runs import OutputRules
from .datastores import DATASTORE, artifact_of, check_datastore
from .run_inputs import DataPath

ARGUMENT = re.compile(r"DatasetOutputConfig:([\w-]+)")  # an argument that stands for a folder
NAME = re.compile(r"[A-Za-z_]\w*")
MOUNT, UPLOAD = "mount", "upload"
OTHER_MECHANISMS = {"hdfs": "HDFSOutputDatasetConfig", "link": "LinkFileOutputDatasetConfig"}
DEFAULT_PATH = "dataset/{run-id}/{output-name}"
PROGRAM = ("python", "-P", "-m", "mnist_deploy.local.programs.register_outputs")


class OutputLocation(Struct, rename="camel"):
    data_path: DataPath | None = None


class Transformation(Struct, rename="camel"):
    additional_transformation: str | None = None


class Registration(Struct, rename="camel"):
    name: str | None = None
    description: str | None = None
    tags: dict[str, str | None] | None = None
    properties: dict[str, str | None] | None = None
    dataset_registration_options: Transformation | None = None


class Globs(Struct, rename="camel"):
    patterns: list[str] | None = None
    glob_patterns: list[str] | None = None


class UploadOptions(Struct, rename="camel"):
    overwrite: bool | None = None
    source_globs: Globs | None = None


class MountOptions(Struct, rename="camel"):
    disable_metadata_cache: bool | None = None


class OutputOptions(Struct, rename="camel"):
    path_on_compute: str | None = None
    registration_options: Registration | None = None
    upload_options: UploadOptions | None = None
    mount_options: MountOptions | None = None


class DataOutput(Struct, rename="camel"):
    """A folder that a run writes, and the data set that is registered from the folder."""

    mechanism: str = MOUNT
    output_location: OutputLocation | None = None
    additional_options: OutputOptions | None = None


@dataclass
class RunOutputs:
    """The outputs of a job, and their placeholders in its command and environment."""

    paths: dict[str, str] = field(default_factory=dict)  # artifact path by output name
    rules: dict[str, OutputRules] = field(default_factory=dict)
    variables: dict[str, str] = field(default_factory=dict)
    last_step: tuple[str, ...] = ()
    warnings: list[str] = field(default_factory=list)

    def fill(self, text: str) -> str:
        """Replace the SDK's placeholders in `text` by placeholders of the job."""
        return ARGUMENT.sub(
            lambda found: placeholder(found[1]) if found[1] in self.paths else found[0], text
        )


def placeholder(name: str) -> str:
    return f"${{{{outputs.{name}}}}}"


def resolve_outputs(run_id: str, outputs: Mapping[str, DataOutput]) -> RunOutputs:
    """Return the outputs of a run.

    Raises
    ------
    Invalid
        If a name or a path is not valid.
    NotFound
        If a data store is missing.
    NotSupported
        If the output mode is neither mount nor upload, or a source is outside of the working
        directory.
    """
    found = RunOutputs()
    steps = []
    for name, each in outputs.items():
        if not NAME.fullmatch(name):
            raise Invalid(
                "output",
                f"{name[:60]!r} is not a valid name of an output. Expected letters, digits and "
                "'_', not beginning with a digit.",
            )
        mechanism = each.mechanism.lower()
        if mechanism not in (MOUNT, UPLOAD):
            raise NotSupported(OTHER_MECHANISMS.get(mechanism, f"the output mode {mechanism}"))
        path = find_path(run_id, name, each)
        options = each.additional_options or OutputOptions()
        found.paths[name] = artifact_of(path)
        found.rules[name] = make_rules(name, mechanism, options)
        found.variables[name] = placeholder(name)
        found.warnings += list_warnings(name, options)
        steps.append({"name": name, "path": path, "config": make_config(mechanism, options)})
    if steps:
        found.variables["AZUREML_DATASET_FILE_OUTPUTS"] = ";".join(found.paths)
        found.last_step = (*PROGRAM, json.dumps(steps))
    return found


def find_path(run_id: str, name: str, output: DataOutput) -> str:
    """Return the path in the data store, with its placeholders replaced."""
    location = output.output_location
    data_path = (location.data_path if location else None) or DataPath()
    check_datastore(data_path.datastore_name or DATASTORE)
    template = (data_path.relative_path or DEFAULT_PATH).strip("/")
    return check_path(template.replace("{run-id}", run_id).replace("{output-name}", name))


def make_rules(name: str, mechanism: str, options: OutputOptions) -> OutputRules:
    source = (options.path_on_compute or "").rstrip("/")
    if source.startswith(("/", "~")):
        raise NotSupported(
            f"the output {name} with the source {source}, which is outside of the run's working "
            "directory: pass a folder in the working directory, or no source"
        )
    if source:
        check_path(source.removeprefix("./"))
    upload = options.upload_options or UploadOptions()
    globs = upload.source_globs or Globs()
    return OutputRules(
        source.removeprefix("./"),
        tuple(globs.glob_patterns or globs.patterns or ()),
        overwrites=mechanism == MOUNT or bool(upload.overwrite),
        needs_success=mechanism == UPLOAD,
    )


def list_warnings(name: str, options: OutputOptions) -> Iterator[str]:
    if options.mount_options and options.mount_options.disable_metadata_cache:
        yield f"disable_metadata_cache: the output {name} is a folder of this machine"


def make_config(mechanism: str, options: OutputOptions) -> dict[str, Any]:
    """Return the configuration that Azure's execution service sends to a run for an output."""
    registration = options.registration_options or Registration()
    transformation = registration.dataset_registration_options or Transformation()
    return {
        "Mechanism": mechanism,
        "AdditionalOptions": {
            "RegistrationOptions": {
                "Name": registration.name,
                "Description": registration.description,
                "Tags": registration.tags,
                "Properties": registration.properties,
                "DatasetRegistrationOptions": {
                    "AdditionalTransformation": transformation.additional_transformation
                },
            }
        },
    }
