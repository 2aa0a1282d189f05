"""The folder of a job: its working directory, its inputs as links, its outputs."""

from __future__ import annotations

import os
import re
import secrets
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath

from ..host import filesystem
from .artifacts import upload_of
from .blobs import read_chunks
from .container_folder import below, copy_below
from .faults import Conflict, Invalid, NotFound
from .records import Code
from .runs import Job, JobInput, OutputRules
from .store import Store

PLACEHOLDER = re.compile(r"\$\{\{\s*(inputs|outputs)\.([^}\s]+)\s*\}\}")
COLLECTED = ("outputs", "logs")  # folders of the working directory that become artifacts of a run


@dataclass(frozen=True)
class JobFolder:
    """The files of a job on disk, ready to be executed.

    Attributes
    ----------
    path : Path
        The folder of the job.
    working_directory : Path
        The folder with the job's code.
    command : list of str
    variables : dict of str to str
        Command and environment variables, with paths instead of placeholders.
    outputs : dict of str to Path
        The folder of each named output.
    """

    path: Path
    working_directory: Path
    command: list[str]
    variables: dict[str, str]
    outputs: dict[str, Path]

    def files_to_collect(self) -> Iterator[tuple[str, Path]]:
        """Yield (path below the working directory, file) of the files in `COLLECTED` folders."""
        for name in COLLECTED:
            yield from list_files(self.working_directory / name, name)

    def remove(self) -> None:
        filesystem.remove_folder(self.path)


def build_job_folder(parent: Path, store: Store, job: Job) -> JobFolder:
    """Create the folder of a job below `parent`.

    Raises
    ------
    NotFound
        If the code or an artifact of an input is missing.
    Invalid
        If a placeholder names no input or output, or a path is outside of the folder.
    """
    path = parent / secrets.token_hex(8)
    working_directory = path / "code"
    try:
        for name in COLLECTED:
            (working_directory / name).mkdir(parents=True)
        if job.code:
            copy_code(store, job.code, working_directory)
        values = {
            f"inputs.{name}": str(link_input(store, path / "inputs" / name, each))
            for name, each in job.inputs.items()
        }
        outputs = {name: path / "outputs" / name for name in job.outputs}
        for name, folder in outputs.items():
            folder.mkdir(parents=True)
            values[f"outputs.{name}"] = str(folder)
            link_output(working_directory, folder, job.output_rules.get(name, OutputRules()))
        command = [fill_placeholders(word, values) for word in job.command]
        variables = {
            name: fill_placeholders(value, values) for name, value in job.variables.items()
        }
    except BaseException:
        filesystem.remove_folder(path)
        raise
    return JobFolder(path, working_directory, command, variables, outputs)


def copy_code(store: Store, code_id: str, folder: Path) -> None:
    """Copy the files of a code asset into `folder`.

    A code asset of SDK v2 is one folder of artifacts. A snapshot of SDK v1 is a list of files;
    unchanged files belong to the uploads of earlier snapshots.
    """
    name, _, version = code_id.rpartition(":")
    for artifact in store.get(Code, name, version).artifacts:
        found = store.artifacts(artifact)
        if not found:
            raise NotFound("upload", artifact)
        is_file = [each.path for each in found] == [artifact]
        root = upload_of(artifact) if is_file else artifact
        for each in found:
            copy_below(folder, str(PurePosixPath(each.path).relative_to(root)), each.file)


def link_input(store: Store, folder: Path, job_input: JobInput) -> Path:
    """Link or copy the artifacts of an input into `folder`; return the path that the job gets.

    Linked artifacts are made read-only, so that a job that writes to its input gets an error.
    File modes do not restrict the superuser, whose jobs get copies.
    """
    folder.mkdir(parents=True)
    files: list[Path] = []
    for artifact in job_input.artifacts:
        found = store.artifacts(artifact)
        if not found:
            raise NotFound("data", artifact)
        for each in found:
            link = below(folder, str(PurePosixPath(each.path).relative_to(job_input.root or ".")))
            link.parent.mkdir(parents=True, exist_ok=True)
            if job_input.is_copied or not filesystem.is_protected_by_mode():
                shutil.copyfile(each.file, link)
            else:
                each.file.chmod(0o400)
                link.unlink(missing_ok=True)  # two paths may name the same artifact
                link.symlink_to(each.file)
            files.append(link)
    return files[0] if job_input.is_file else folder


def link_output(working_directory: Path, folder: Path, rules: OutputRules) -> None:
    """Create a link from the source path of an output to the output's folder.

    Raises
    ------
    Invalid
        If the code has a file or a folder at the source path, or this system permits no symbolic
        links.
    """
    if not rules.source:
        return
    if not filesystem.CAN_LINK:
        raise Invalid(
            "output",
            f"The source {rules.source} of an output requires a symbolic link, which Windows "
            "permits few users: write into the folder that the script gets as its argument.",
        )
    link = below(working_directory, rules.source)
    if link.exists():
        raise Invalid(
            "output",
            f"The source {rules.source} of an output is part of the code: expected a new folder.",
        )
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(folder)


def fill_placeholders(text: str, values: dict[str, str]) -> str:
    """Replace each placeholder in `text` by a path."""

    def fill(match: re.Match[str]) -> str:
        name = f"{match[1]}.{match[2]}"
        if name not in values:
            known = ", ".join(sorted(values)) or "none"
            raise Invalid(
                "command", f"{match[0]} is not an input or output of the job: expected {known}."
            )
        return values[name]

    return PLACEHOLDER.sub(fill, text)


def select_files(
    store: Store, artifacts: str, folder: Path, rules: OutputRules
) -> Iterator[tuple[str, Path]]:
    """Yield (path with slashes, file) of the files of an output to upload to `artifacts`.

    Raises
    ------
    Conflict
        If `artifacts` has a file already, and the rules do not permit replacing it.
    """
    for name, file in list_files(folder):
        if rules.patterns and not any(fnmatch(str(file), each) for each in rules.patterns):
            continue
        if not rules.overwrites and store.artifact(f"{artifacts}/{name}") is not None:
            raise Conflict(
                "output",
                f"{name} is in the destination of the output already: pass another destination, "
                "or as_upload(overwrite=True) of SDK v1.",
            )
        yield name, file


def list_files(folder: Path, prefix: str = "") -> Iterator[tuple[str, Path]]:
    """Yield (path with slashes, file) of all files below `folder`; skip links to other folders."""
    root = folder.resolve()
    for here, _, names in os.walk(folder):
        for name in sorted(names):
            file = Path(here, name)
            if file.is_file() and file.resolve().is_relative_to(root):
                yield str(PurePosixPath(prefix, file.relative_to(folder).as_posix())), file


def upload_files(store: Store, artifacts: str, files: Iterator[tuple[str, Path]]) -> int:
    """Write files to the store below the path `artifacts`; return their number.

    Raises
    ------
    Full
        If the disk is full.
    """
    count = 0
    for name, file in files:
        store.write(f"{artifacts}/{name}", read_chunks(file))
        count += 1
    return count
