"""What can be downloaded: a model's files, the content of an environment."""

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
        If there is nothing of that kind, name and version.
    """
    if kind == "environment":
        return store.get(Environment, name, version)
    if kind == "model" and version.isdecimal() and len(version) < 19:
        return store.get(Model, name, int(version))
    raise NotFound(kind, f"{name}:{version}")


def pack(store: Store, record: Model | Environment) -> dict[str, Any]:
    """What ``flask.send_file`` takes: one file of a model as it is, several as a zip."""
    stem = f"{record.name}-{record.version}"
    if isinstance(record, Environment):
        return attachment(
            io.BytesIO(definition(record).encode()), f"{stem}.yml", "application/yaml"
        )
    files = [
        (path.removeprefix(prefix).lstrip("/") or path.rpartition("/")[2], file)
        for prefix in record.artifacts
        for path, file in store.files(prefix)
    ]
    if len(files) == 1:
        return attachment(files[0][1], files[0][0].rpartition("/")[2])
    packed = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the answer
    with zipfile.ZipFile(packed, "w") as archive:
        for path, file in files:
            archive.write(file, path)
    packed.seek(0)
    return attachment(packed, f"{stem}.zip", "application/zip")


def attachment(
    content: Any, name: str, mimetype: str = "application/octet-stream"
) -> dict[str, Any]:
    return {
        "path_or_file": content,
        "download_name": name,
        "mimetype": mimetype,
        "as_attachment": True,
    }


def definition(environment: Environment) -> str:
    """What `Environment.from_conda_specification` and v2's ``conda_file`` take."""
    return yaml.safe_dump(environment.conda or {}, sort_keys=False, allow_unicode=True)
