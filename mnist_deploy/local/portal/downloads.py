"""Streamed downloads: files of a model or a run, and the conda file of an environment."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import yaml
from flask import Response, send_file
from werkzeug.wsgi import LimitedStream

from ..core.faults import NotFound
from ..core.records import Environment, Model
from ..core.runs import Run, Runs
from ..core.store import Store
from .run_files import find_run_file, list_run_files

PIECE = 1 << 18  # bytes of a file in one read


def find_record(store: Store, kind: str, name: str, version: str) -> Model | Environment:
    """Return a registered model or environment.

    Raises
    ------
    NotFound
        If no record of the kind has this name and version.
    """
    if kind == "environment":
        return store.get(Environment, name, version)
    if kind == "model" and version.isdecimal() and len(version) < 19:
        return store.get(Model, name, int(version))
    raise NotFound(kind, f"{name}:{version}")


def send_record(store: Store, record: Model | Environment) -> Response:
    """Send the conda file of an environment, the only file of a model, or an archive of its files.

    Raises
    ------
    NotFound
        If a file of the model is missing in the store.
    """
    stem = f"{record.name}-{record.version}"
    if isinstance(record, Environment):
        content = io.BytesIO(definition(record).encode())
        return send_file(**attachment(content, f"{stem}.yml", "application/yaml"))
    files = [
        (safe_name(path.removeprefix(prefix).lstrip("/") or path.rpartition("/")[2]), file)
        for prefix in record.artifacts
        for path, file in store.files(prefix)
    ]
    if missing := [name for name, file in files if not file.is_file()]:
        raise NotFound("file", f"{missing[0]} of {record.name}:{record.version}")
    if len(files) == 1:
        return send_one_file(files[0][1], files[0][0].rpartition("/")[2])
    return send_archive(files, f"{stem}.zip")


def send_run_files(run: Run, runs: Runs, name: str) -> Response:
    """Send one file of a run, or an archive of all its files if `name` is empty.

    Raises
    ------
    NotFound
        If the run has no such file.
    """
    if name:
        return send_one_file(find_run_file(run, runs, name).file, name.rpartition("/")[2])
    files = [
        (safe_name(found), artifact.file)
        for found, artifact in list_run_files(run, runs)
        if artifact.file.is_file()
    ]
    return send_archive(files, f"{run.id}.zip")


class FileContent(LimitedStream):
    """A file limited to its size when opened: the log of an active run may grow meanwhile."""

    def __init__(self, file: Path) -> None:
        self._file = open(file, "rb")  # noqa: SIM115 - closed with the response
        self.size = os.fstat(self._file.fileno()).st_size
        super().__init__(self._file, self.size)

    def close(self) -> None:
        self._file.close()
        super().close()


def send_one_file(file: Path, name: str) -> Response:
    content = FileContent(file)
    response = send_file(**attachment(content, name))
    response.content_length = content.size
    return response


def send_archive(files: Iterable[tuple[str, Path]], name: str) -> Response:
    response = Response(stream_archive(files), mimetype="application/zip")
    response.headers.set("Content-Disposition", "attachment", filename=ascii_name(name))
    return response


class Buffer(io.RawIOBase):
    """A file in memory from which `take` removes the bytes written so far."""

    def __init__(self) -> None:
        self._content = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, content: Any) -> int:
        self._content += content
        return len(content)

    def take(self) -> bytes:
        content = bytes(self._content)
        self._content.clear()
        return content


def stream_archive(files: Iterable[tuple[str, Path]]) -> Iterator[bytes]:
    """Yield pieces of a zip archive of (name, file) without storing the whole archive."""
    buffer = Buffer()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, file in files:
            entry = zipfile.ZipInfo.from_file(file, name)
            with open(file, "rb") as source, archive.open(entry, "w", force_zip64=True) as target:
                while piece := source.read(PIECE):
                    target.write(piece)
                    yield buffer.take()
    yield buffer.take()


def safe_name(name: str) -> str:
    """Remove control characters, which headers and some file systems do not allow."""
    return "".join(each if each.isprintable() else "_" for each in name)


def ascii_name(name: str) -> str:
    """Convert a file name to ASCII for a header."""
    return "".join(each if each.isascii() else "_" for each in safe_name(name))


def attachment(
    content: Any, name: str, mimetype: str = "application/octet-stream"
) -> dict[str, Any]:
    """Return the arguments of ``flask.send_file`` for a file that the browser saves."""
    return {
        "path_or_file": content,
        "download_name": safe_name(name) or "file",
        "mimetype": mimetype,
        "as_attachment": True,
    }


def definition(environment: Environment) -> str:
    """Return a conda file that `Environment.from_conda_specification` and SDK v2 accept."""
    return yaml.safe_dump(environment.conda or {}, sort_keys=False, allow_unicode=True)
