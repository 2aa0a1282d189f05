"""Unpacks uploaded tar archives of scripts, without path traversal by names or by links."""

from __future__ import annotations

import posixpath
import shutil
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from .faults import Invalid

MAX_UNPACKED = 4 << 30  # bytes
MAX_ENTRIES = 100_000
MAX_LINKS = 8  # length of a chain of links
TOO_MANY_FILES = (
    f"The source directory has more than {MAX_ENTRIES} files. Choose a smaller source directory."
)

Entry = tuple[PurePosixPath, tarfile.TarInfo]


def unpack(archive: Path, folder: Path) -> None:
    """Unpack the files of an archive; a link within the archive becomes a copy of its target.

    Paths are relative to the parent of the archive's first entry, which is unpacked directly into
    `folder`: the SDK packs a source directory under its name, but a script of the image API under
    its absolute path.

    Raises
    ------
    Invalid
        If the file is not a tar archive, exceeds a limit, or has a path outside of `folder`.
    """
    left = MAX_UNPACKED
    with _opened(archive) as tar:
        contents = _Contents(tar)
        for path, member in contents.files():
            left -= member.size
            if left < 0:
                raise Invalid(
                    "archive",
                    f"The uploaded scripts have more than {MAX_UNPACKED} bytes when unpacked. "
                    "Register large files as a model.",
                )
            source = tar.extractfile(member)
            if source is not None:
                target = below(folder, str(path))
                target.parent.mkdir(parents=True, exist_ok=True)
                with source, open(target, "wb") as copy:
                    shutil.copyfileobj(source, copy)


def find_skipped_links(archive: Path) -> list[str]:
    """The links that `unpack` skips: their targets are missing, or outside of the archive."""
    with _opened(archive) as tar:
        contents = _Contents(tar)
        for _ in contents.files():
            pass
        return sorted(contents.skipped)


def below(folder: Path, name: str) -> Path:
    """The path of `name` inside `folder`.

    Raises
    ------
    Invalid
        If the path is outside of `folder`.
    """
    path = (folder / name).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise Invalid("path", f"{name!r} is not inside its folder: expected a path without '..'.")
    return path


@contextmanager
def _opened(archive: Path) -> Iterator[tarfile.TarFile]:
    try:
        with tarfile.open(archive) as tar:
            yield tar
    except (tarfile.TarError, zlib.error, EOFError, OSError) as error:
        raise Invalid(
            "archive", f"The uploaded scripts cannot be unpacked as a tar archive: {error}"
        ) from error


class _Contents:
    """The entries of an archive by path, and the targets of its links.

    Attributes
    ----------
    skipped : set of str
        The links that `files` has skipped so far.
    """

    def __init__(self, tar: tarfile.TarFile) -> None:
        self.skipped: set[str] = set()
        self._members = {posixpath.normpath(member.name): member for member in tar}
        if len(self._members) > MAX_ENTRIES:
            raise Invalid("archive", TOO_MANY_FILES)
        first = next(iter(self._members), ".")
        self._root = PurePosixPath(first).parent

    def files(self) -> Iterator[Entry]:
        """Yield (path below the first entry's parent, regular file) of all files to unpack."""
        count = 0
        for name, member in self._members.items():
            path = PurePosixPath(name)
            if not path.is_relative_to(self._root):
                continue
            for entry in self._resolve(path.relative_to(self._root), member, 0):
                count += 1
                if count > MAX_ENTRIES:
                    raise Invalid("archive", TOO_MANY_FILES)
                yield entry

    def _resolve(self, path: PurePosixPath, member: tarfile.TarInfo, links: int) -> Iterator[Entry]:
        if member.isreg():
            yield path, member
        elif member.issym() or member.islnk():
            target = self._find_target(member)
            found = list(self._below(target)) if target else []
            if links > MAX_LINKS or not found:
                self.skipped.add(str(path))
                return
            for relative, each in found:
                yield from self._resolve(path / relative, each, links + 1)

    def _find_target(self, link: tarfile.TarInfo) -> str | None:
        """The path of a link's target; None if it is outside the archive, or contains the link."""
        folder = "" if link.islnk() else posixpath.dirname(link.name)
        target = posixpath.normpath(posixpath.join(folder, link.linkname))
        is_inside = PurePosixPath(target).is_relative_to(self._root) and not target.startswith("..")
        encloses = PurePosixPath(posixpath.normpath(link.name)).is_relative_to(target)
        return target if is_inside and not encloses else None

    def _below(self, target: str) -> Iterator[Entry]:
        member = self._members.get(target)
        if member is not None and not member.isdir():
            yield PurePosixPath(), member
            return
        for name, each in self._members.items():
            if name.startswith(f"{target}/") and not each.isdir():
                yield PurePosixPath(name).relative_to(target), each
