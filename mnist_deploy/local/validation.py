"""Checks of the values that clients send, which both REST APIs call before they store a value.

A value is rejected if Azure rejects it, or if a process, JSON or a database row cannot hold it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import yaml
from packaging.markers import UndefinedComparison, UndefinedEnvironmentName
from packaging.requirements import InvalidRequirement, Requirement
from packaging.version import InvalidVersion

from .core.container_spec import MAX_WORKERS
from .core.faults import Invalid

# ModelVersions_CreateOrUpdate and EnvironmentVersions_CreateOrUpdate, and the dot that names of
# Azure's own registries have.
ASSET_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,254}")
VERSION = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,254}")
PLACEHOLDER = re.compile(r"<[^<>/]+>")
RESERVED_PREFIX = "azureml"  # of Azure's own environments
MAX_VERSION = 10**15
MAX_VARIABLE = 128 * 1024 - 1  # bytes of NAME=VALUE: what Linux passes to a process
MAX_DOCUMENT_VALUES = 10_000  # of a conda file, with every alias expanded
MAX_DOCUMENT_CHARACTERS = 1_000_000
MAX_DOCUMENT_DEPTH = 50
PIP_OPTION = re.compile(r"-|\S+://|\.{0,2}/|.*\.(whl|zip|tar\.gz)\b")


def check_choice(option: str, value: str | None, allowed: Sequence[str]) -> str | None:
    """One of the allowed values, as Azure spells it; None stays None.

    Raises
    ------
    Invalid
        With the option, its value, and the values that are allowed.
    """
    if value is None:
        return None
    for choice in allowed:
        if choice.lower() == value.lower():
            return choice
    raise Invalid(option, f"{option} is {value!r}, but one of {', '.join(allowed)} is expected.")


def is_placeholder(name: str) -> bool:
    """Whether a name is a placeholder of Microsoft's notebooks: a text in angle brackets."""
    return PLACEHOLDER.fullmatch(name) is not None


def check_asset_name(kind: str, name: str) -> None:
    """Reject a name that Azure does not allow for an asset.

    Raises
    ------
    Invalid
        With the allowed characters.
    """
    if not ASSET_NAME.fullmatch(name):
        shown = name if len(name) <= 60 else f"{name[:60]}…"
        raise Invalid(
            f"{kind} name",
            f"The {kind} name {shown!r} ({len(name)} characters) is not valid. Expected 1 to 255 "
            "letters a to z, digits, '.', '_' and '-', the first of them a letter or a digit.",
        )


def check_environment_name(name: str) -> None:
    """As `check_asset_name`; also reject the reserved prefix of Azure's own environments."""
    check_asset_name("environment", name)
    if name.lower().startswith(RESERVED_PREFIX):
        raise Invalid(
            "environment name",
            f"The environment name {name!r} begins with AzureML, which is reserved for the curated "
            "environments of Azure. Register the environment under another name.",
        )


def check_environment_version(version: str) -> None:
    """Reject a version of an environment with characters that Azure does not allow.

    Raises
    ------
    Invalid
        With the allowed characters.
    """
    if not VERSION.fullmatch(version):
        raise Invalid(
            "environment version",
            f"The environment version {version[:60]!r} is not valid. Expected 1 to 255 letters a "
            "to z, digits, '.', '_' and '-'.",
        )


def check_version_number(kind: str, version: int, previous_exists: bool) -> None:
    """Reject a number after which further versions could not be counted.

    Parameters
    ----------
    previous_exists : bool
        Whether the version with the previous number exists, so that the client counts versions.
    """
    if version > MAX_VERSION and not previous_exists:
        raise Invalid(
            "version",
            f"Version {version} of a {kind} is too large: at most {MAX_VERSION} is expected.",
        )


def check_variables(variables: Mapping[str, Any]) -> None:
    """Reject environment variables with which a process cannot be started.

    Raises
    ------
    Invalid
        With the name of the variable.
    """
    for name, value in variables.items():
        option = f"environment_variables[{name[:60]!r}]"
        if not name or "=" in name or "\0" in name or not is_encodable(name):
            raise Invalid(
                "environment variable",
                f"{option}: a name without '=' and without the character NUL is expected.",
            )
        if value is None:
            continue
        if not isinstance(value, str):
            raise Invalid(
                "environment variable",
                f"{option} is {value!r}, but a text is expected, such as {str(value)!r}.",
            )
        if "\0" in value or not is_encodable(value):
            raise Invalid(
                "environment variable",
                f"{option}: a value without the character NUL and without halves of surrogate "
                "pairs is expected.",
            )
        if len(f"{name}={value}".encode()) > MAX_VARIABLE:
            raise Invalid(
                "environment variable",
                f"{option} is longer than {MAX_VARIABLE} bytes, the maximum that Linux passes to a "
                "process. Put the content into a file beside the script.",
            )
    check_worker_count(variables.get("WORKER_COUNT"))


def check_worker_count(count: str | None) -> None:
    if count is None:
        return
    is_number = count.isascii() and count.isdecimal() and len(count) <= 4
    if not is_number or not 1 <= int(count) <= MAX_WORKERS:
        raise Invalid(
            "environment variable",
            f"WORKER_COUNT is {count[:20]!r}, but a number from 1 to {MAX_WORKERS} is expected.",
        )


def is_encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def parse_conda_file(text: str | bytes) -> dict[str, Any]:
    """The content of a conda file.

    Raises
    ------
    Invalid
        If the file is not YAML, or `check_conda` rejects its content.
    """
    if len(text) > MAX_DOCUMENT_CHARACTERS:
        raise Invalid(
            "conda file", f"The conda file is longer than {MAX_DOCUMENT_CHARACTERS} characters."
        )
    try:
        content = yaml.safe_load(text)
    except (yaml.YAMLError, UnicodeError, ValueError, RecursionError) as error:
        raise Invalid("conda file", f"The conda file is not YAML: {error}") from error
    check_conda(content)
    return content


def check_conda(content: Any) -> None:
    """Reject the content of a conda file that JSON cannot hold, or that pip cannot read.

    Raises
    ------
    Invalid
        With the path in the file, and the reason.
    """
    if not isinstance(content, dict):
        raise Invalid(
            "conda file",
            "The conda file is not a mapping of names to values: expected, for instance, "
            "'dependencies:' with a list.",
        )
    _DocumentSize().add(content, "", 0)
    dependencies = content.get("dependencies")
    if dependencies is None:
        return
    if not isinstance(dependencies, list):
        raise Invalid(
            "conda file",
            "The conda file's dependencies are not a list: expected lines such as "
            "'- scikit-learn=1.5'.",
        )
    for entry in dependencies:
        if isinstance(entry, dict):
            lines = entry.get("pip") or []
            if not isinstance(lines, list):
                raise Invalid(
                    "conda file",
                    "The conda file's pip is not a list: expected lines such as "
                    "'- scikit-learn==1.5.2'.",
                )
            for line in lines:
                check_requirement(line)
        elif not isinstance(entry, str):
            raise Invalid(
                "conda file",
                f"The dependency {entry!r} is not a text: expected, for instance, "
                "'scikit-learn=1.5'.",
            )


def check_requirement(line: Any) -> None:
    """Reject a line below ``pip:`` that pip cannot read, or whose marker it cannot evaluate.

    Raises
    ------
    Invalid
        With the line.
    """
    if not isinstance(line, str):
        raise Invalid(
            "conda file",
            f"The pip requirement {line!r} is not a text: expected, for instance, "
            "'scikit-learn==1.5.2'.",
        )
    text = line.split(" #")[0].strip()
    if not text or text.startswith("#") or PIP_OPTION.match(text):
        return
    try:
        marker = Requirement(text).marker
        if marker is not None:
            marker.evaluate()
    except InvalidRequirement as error:
        reason = str(error).splitlines()[0]
        raise Invalid(
            "conda file", f"pip cannot read the requirement {line!r}: {reason}."
        ) from error
    except (UndefinedComparison, UndefinedEnvironmentName, InvalidVersion) as error:
        raise Invalid(
            "conda file",
            f"pip cannot evaluate the marker of the requirement {line!r}: {error}.",
        ) from error


class _DocumentSize:
    """Counts the values of a document, with an alias of YAML once for each use, as in JSON."""

    def __init__(self) -> None:
        self._values = self._characters = 0

    def add(self, value: Any, path: str, depth: int) -> None:
        self._values += 1
        if self._values > MAX_DOCUMENT_VALUES or depth > MAX_DOCUMENT_DEPTH:
            raise Invalid(
                "conda file",
                f"The conda file holds more than {MAX_DOCUMENT_VALUES} values, or more than "
                f"{MAX_DOCUMENT_DEPTH} levels, once its aliases are expanded.",
            )
        if isinstance(value, str):
            self._add_text(value, path)
        elif isinstance(value, dict):
            for key, each in value.items():
                if not isinstance(key, str):
                    raise Invalid(
                        "conda file",
                        f"The conda file has the key {key!r} at {path or 'the top'}, but a text "
                        "is expected: put it in quotes.",
                    )
                self._add_text(key, path)
                self.add(each, f"{path}.{key}" if path else key, depth + 1)
        elif isinstance(value, list):
            for number, each in enumerate(value):
                self.add(each, f"{path}[{number}]", depth + 1)
        elif not is_json_scalar(value):
            raise Invalid(
                "conda file",
                f"The conda file holds {value!r} at {path or 'the top'}, which JSON cannot hold: "
                "put it in quotes.",
            )

    def _add_text(self, text: str, path: str) -> None:
        self._characters += len(text)
        if self._characters > MAX_DOCUMENT_CHARACTERS:
            raise Invalid(
                "conda file",
                f"The conda file holds more than {MAX_DOCUMENT_CHARACTERS} characters, once its "
                "aliases are expanded.",
            )
        if not is_encodable(text):
            raise Invalid(
                "conda file",
                f"The conda file holds half of a surrogate pair at {path or 'the top'}.",
            )


def is_json_scalar(value: Any) -> bool:
    if isinstance(value, int):
        return -(2**63) <= value < 2**63
    return value is None or (isinstance(value, float) and math.isfinite(value))
