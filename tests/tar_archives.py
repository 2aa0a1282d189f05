"""Tar archives as SDK v1 uploads them, and as no SDK would."""

from __future__ import annotations

import io
import tarfile


def archive(members: dict[str, bytes | str], **kinds: bytes) -> bytes:
    """A tar file; a member whose content is text is a link to that."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            if isinstance(content, str):
                member.type, member.linkname = kinds.get("link", tarfile.SYMTYPE), content
                tar.addfile(member)
            else:
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()
