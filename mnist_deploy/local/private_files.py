"""Files that only their user can read, written whole or not at all."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from .host import filesystem


def write_private(path: Path, content: bytes) -> Path:
    """Write a file that only its user can read, whole or not at all."""
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(content)
        filesystem.replace_file(part, path)
    except BaseException as error:
        part.unlink(missing_ok=True)
        if isinstance(error, OSError):
            error.filename = os.fspath(path)  # the OSError of a full disk has no path
        raise
    return path
