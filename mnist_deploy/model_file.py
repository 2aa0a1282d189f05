"""What a model's file tells before anybody loads it: loading a pickle runs what is in it."""

from __future__ import annotations

import hashlib
import re
from importlib.metadata import version as installed_version
from pathlib import Path

from packaging.version import InvalidVersion, Version

# scikit-learn writes its version into each estimator. In a pickle: the name, one of the opcodes
# that remember it, one of those that begin a string, and the length of what follows.
_SAVED_WITH = re.compile(rb"_sklearn_version(?:\x94|q.|r.{4})(?:\x8c(.)|X(.)\0{3})", re.S)
_SUFFIXES = {".pkl", ".pickle", ".joblib"}


def find_problem(path: Path, sha256: str | None) -> str | None:
    """Say why a file must not be loaded; None if nothing speaks against it.

    Parameters
    ----------
    path : Path
        Of a file.
    sha256 : str, optional
        What was registered with the model, in hexadecimal.
    """
    content = path.read_bytes()
    if not content:
        return "it is empty"
    if sha256 is not None and hashlib.sha256(content).hexdigest() != sha256:
        return "its sha256 is not the one that it was registered with"
    # Every pickle ends with this opcode; joblib's compressed ones begin otherwise.
    if path.suffix in _SUFFIXES and content.startswith(b"\x80") and not content.endswith(b"."):
        return "it is cut short"
    return None


def saved_with(path: Path) -> str | None:
    """Read which scikit-learn pickled a model, without loading it; None if it does not say so."""
    content = path.read_bytes()
    found = _SAVED_WITH.search(content)
    if found is None:
        return None
    length = ord(found[1] or found[2])
    return content[found.end() : found.end() + length].decode("ascii", "replace")


def sha256_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def loads_here(version: str) -> bool:
    """Whether a model of that scikit-learn loads in the one installed here."""
    return same_minor(version, installed_version("scikit-learn"))


def same_minor(one: str, other: str) -> bool:
    """Whether two releases belong to one minor version, whose pickles are interchangeable."""
    try:
        return Version(one).release[:2] == Version(other).release[:2]
    except InvalidVersion:
        return one == other
