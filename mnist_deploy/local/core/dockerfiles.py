"""The instructions of a Dockerfile that require no Docker: files and variables of an image.

``COPY`` and ``ADD`` of files, ``ENV`` and ``WORKDIR`` are applied. ``RUN`` is not executed, because
scripts run in the Python of the control plane; the build's output reports each such line.
"""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from .container_folder import below
from .faults import Invalid, NotFound
from .requirements import differences

NOT_RUN = "not run: the local workspace builds no image, the script runs in this Python"


@dataclass
class ImageContent:
    """The content of an image.

    Attributes
    ----------
    root : Path
        The files of the image that come from the build context.
    variables : dict of str to str
    output : list of str
        Lines for the build's output.
    warnings : list of str
        Requirements that this Python does not meet.
    """

    root: Path
    variables: dict[str, str] = field(default_factory=dict)
    output: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def apply_dockerfile(context: Path, name: str, root: Path) -> ImageContent:
    """Apply the Dockerfile `name` of a build context: copy files into `root`, read variables.

    Raises
    ------
    NotFound
        If the context has no such Dockerfile, or a file that is copied is missing.
    Invalid
        If a line cannot be parsed, or a path is outside of its folder.
    """
    file = below(context, name)
    if not file.is_file():
        raise NotFound("Dockerfile", name)
    image, folder = ImageContent(root), PurePosixPath("/")
    instructions = list(parse_instructions(file.read_text("utf-8", errors="replace")))
    for number, (instruction, value) in enumerate(instructions, 1):
        image.output.append(f"Step {number}/{len(instructions)} : {instruction} {value}")
        if instruction == "WORKDIR":
            folder /= value
        elif instruction == "ENV":
            image.variables |= parse_variables(value)
        elif instruction in ("COPY", "ADD"):
            for source in copy_sources(context, root, folder, value):
                image.warnings += compare_requirements(source)
        elif instruction == "RUN":
            image.output.append(f" ---> {NOT_RUN}")
    image.output += image.warnings
    return image


def parse_instructions(text: str) -> Iterator[tuple[str, str]]:
    """Yield each instruction in upper case, with its value on one line."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        name, _, value = line.strip().partition(" ")
        if name:
            yield name.upper(), value.strip()


def split_words(value: str) -> list[str]:
    try:
        words = json.loads(value) if value.startswith("[") else shlex.split(value)
    except ValueError as error:
        raise Invalid("Dockerfile", f"{value!r} cannot be read: {error}") from error
    return [str(word) for word in words]


def parse_variables(value: str) -> dict[str, str]:
    """The variables of ``NAME=value NAME="value"``, or of the older form ``NAME value``."""
    words = split_words(value)
    if words and "=" not in words[0]:
        return {words[0]: " ".join(words[1:])}
    return dict(word.split("=", 1) for word in words if "=" in word)


def copy_sources(context: Path, root: Path, folder: PurePosixPath, value: str) -> Iterator[Path]:
    """Copy files and the content of folders as ``COPY`` does, and yield each source."""
    *sources, target = [word for word in split_words(value) if not word.startswith("--")] or [""]
    is_folder = target.endswith("/") or len(sources) > 1
    path = below(root, str(folder / target).lstrip("/"))
    for name in sources:
        source = below(context, name.lstrip("/"))
        if source.is_dir():
            shutil.copytree(source, path, dirs_exist_ok=True)
        elif source.is_file():
            copy = path / source.name if is_folder or path.is_dir() else path
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, copy)
        else:
            raise NotFound("file of the build context", name)
        yield source


def compare_requirements(source: Path) -> list[str]:
    """Warnings for requirements of a conda file or a requirements file that are not installed."""
    if not source.is_file() or source.suffix not in (".yml", ".yaml", ".txt"):
        return []
    text = source.read_text("utf-8", errors="replace")
    if source.suffix == ".txt":
        return differences({"dependencies": [{"pip": text.splitlines()}]})
    try:
        content: Any = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError):
        return []
    return differences(content) if isinstance(content, dict) else []
