"""Substitute for ``imghdr``, which Python 3.13 has removed: the kind of an image file."""

from __future__ import annotations

import os
from typing import IO

BEGINNINGS = {
    b"\x89PNG\r\n\x1a\n": "png",
    b"\xff\xd8": "jpeg",
    b"GIF8": "gif",
    b"BM": "bmp",
    b"II*\0": "tiff",
    b"MM\0*": "tiff",
}


def what(file: str | os.PathLike[str] | IO[bytes], h: bytes | None = None) -> str | None:
    """The kind of an image by its first bytes; None for an unknown kind.

    Parameters
    ----------
    file : path or binary file
    h : bytes, optional
        The first bytes, instead of those of `file`.
    """
    if h is None:
        if isinstance(file, str | os.PathLike):
            with open(file, "rb") as opened:
                h = opened.read(32)
        else:
            position = file.tell()
            h = file.read(32)
            file.seek(position)
    return next((kind for begin, kind in BEGINNINGS.items() if h.startswith(begin)), None)
