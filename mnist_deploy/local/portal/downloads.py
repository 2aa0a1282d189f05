"""Downloads: the files of a model, the conda file of an environment."""

from __future__ import annotations

import io
import tempfile
import zipfile
from typing import Any

import yaml

from ..core.faults import NotFound
from ..core.records import Environment, Model
from ..core.store import Store


def find(store: Store, kind: str, name: str, version: str) -> Model | Environment:
    """A registered model or environment.

    Raises
    ------
    NotFound
        If no record of that kind has this name and version.
    """
    if kind == "environment":
        return store.get(Environment, name, version)
    if kind == "model" and version.isdecimal() and len(version) < 19:
        return store.get(Model, name, int(version))
    raise NotFound(kind, f"{name}:{version}")


def pack(store: Store, record: Model | Environment) -> dict[str, Any]:
    """The arguments of ``flask.send_file``: one file of a model as it is, several as a zip.

    Raises
    ------
    NotFound
        If a file of the model is missing in the store.
    """
    stem = f"{record.name}-{record.version}"
    if isinstance(record, Environment):
        return attachment(
            io.BytesIO(definition(record).encode()), f"{stem}.yml", "application/yaml"
        )
    files = [
        (safe_name(path.removeprefix(prefix).lstrip("/") or path.rpartition("/")[2]), file)
        for prefix in record.artifacts
        for path, file in store.files(prefix)
    ]
    if missing := [name for name, file in files if not file.is_file()]:
        raise NotFound("file", f"{missing[0]} of {record.name}:{record.version}")
    if len(files) == 1:
        return attachment(files[0][1], files[0][0].rpartition("/")[2])
    packed = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the response
    with zipfile.ZipFile(packed, "w") as archive:
        for name, file in files:
            archive.write(file, name)
    packed.seek(0)
    return attachment(packed, f"{stem}.zip", "application/zip")


def safe_name(name: str) -> str:
    """A name without control characters, which neither a header nor every file system can hold."""
    return "".join(each if each.isprintable() else "_" for each in name)


def attachment(
    content: Any, name: str, mimetype: str = "application/octet-stream"
) -> dict[str, Any]:
    """The arguments of ``flask.send_file`` for a file that the browser saves."""
    return {
        "path_or_file": content,
        "download_name": safe_name(name) or "file",
        "mimetype": mimetype,
        "as_attachment": True,
    }


def definition(environment: Environment) -> str:
    """The conda file that `Environment.from_conda_specification` and SDK v2 accept."""
    return yaml.safe_dump(environment.conda or {}, sort_keys=False, allow_unicode=True)
