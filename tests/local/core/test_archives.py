"""Archives of scripts: what is unpacked, and that nothing of it leaves the folder."""

from __future__ import annotations

import contextlib
import tarfile
from pathlib import Path

import pytest
from tar_archives import archive

from mnist_deploy.local.core import archives
from mnist_deploy.local.core.archives import below, find_skipped_links, unpack
from mnist_deploy.local.core.faults import Invalid


def unpacked(tmp_path: Path, content: bytes) -> dict[str, bytes]:
    """The files that an archive puts into a folder."""
    (tmp_path / "a.tar.gz").write_bytes(content)
    folder = tmp_path / "out"
    folder.mkdir()
    unpack(tmp_path / "a.tar.gz", folder)
    found = [file for file in folder.rglob("*") if file.is_file()]
    assert not any(file.is_symlink() for file in folder.rglob("*"))
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in found}


@pytest.mark.parametrize(
    "name",
    ["../x", "/etc/x", "a/../../x", "..", "a/../../../../../../etc/passwd", "./../x", "out/x"],
)
def test_path_outside_of_the_folder_is_rejected(tmp_path, name):
    inside = tmp_path / "inside"
    inside.mkdir()
    (inside / "out").symlink_to(tmp_path)
    if name == "out/x" and not (inside / "out").is_symlink():
        pytest.skip("wine makes no symbolic links")
    with pytest.raises(Invalid):
        below(inside, name)


@pytest.mark.parametrize(
    "members",
    [
        {"src/a": b"a", "../evil": b"x"},
        {"src/a": b"a", "/tmp/evil": b"x"},
        {"src/a": b"a", "src/../../evil": b"x"},
        {"src/a": b"a", "src/link": "../../..", "src/link/evil": b"x"},
        {"src/a": b"a", "src/evil": "/etc/passwd"},
        {"../../evil": b"x"},
    ],
)
def test_member_with_a_path_outside_is_not_written(tmp_path, members):
    folder = tmp_path / "deep" / "folder"
    folder.mkdir(parents=True)
    (tmp_path / "a.tar.gz").write_bytes(archive(members))
    with contextlib.suppress(Invalid):
        unpack(tmp_path / "a.tar.gz", folder)
    outside = {p for p in tmp_path.rglob("*") if p.is_file() and folder not in p.parents}
    assert outside == {tmp_path / "a.tar.gz"}
    assert not any(p.is_symlink() for p in tmp_path.rglob("*"))


def test_links_that_stay_inside_become_copies(tmp_path):
    """On Azure the archive is unpacked with its links, which lead to the same content."""
    members = {
        "s/a": b"a",
        "s/folder/b": b"b",
        "s/link": "a",
        "s/folder/up": "../a",
        "s/chain": "link",
        "s/whole": "folder",
    }
    assert unpacked(tmp_path, archive(members)) == {
        "a": b"a", "folder/b": b"b", "link": b"a", "folder/up": b"a", "chain": b"a",
        "whole/b": b"b", "whole/up": b"a",
    }  # fmt: skip
    assert find_skipped_links(tmp_path / "a.tar.gz") == []


def test_hard_link_becomes_a_copy(tmp_path):
    content = archive({"s/a": b"a", "s/b": "s/a"}, link=tarfile.LNKTYPE)
    assert unpacked(tmp_path, content) == {"a": b"a", "b": b"a"}


def test_links_that_lead_out_are_left_out_and_named(tmp_path):
    members = {
        "s/a": b"a", "s/out": "../../etc", "s/absolute": "/etc/passwd", "s/nothing": "none",
        "s/loop": "loop", "s/enclosing": ".", "s/deep/enclosing": "..",
    }  # fmt: skip
    assert unpacked(tmp_path, archive(members)) == {"a": b"a"}
    assert find_skipped_links(tmp_path / "a.tar.gz") == [
        "absolute", "deep/enclosing", "enclosing", "loop", "nothing", "out",
    ]  # fmt: skip


@pytest.mark.parametrize("kind", [tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_device_is_left_out(tmp_path, kind):
    assert unpacked(tmp_path, archive({"s/a": b"a", "s/odd": "a"}, link=kind)) == {"a": b"a"}


@pytest.mark.parametrize(
    ("content", "reason"),
    [(archive({"s/a": bytes(600), "s/b": bytes(600)}), "1000 bytes"), (b"no archive", "unpacked")],
    ids=["bomb", "none"],
)
def test_archive_that_is_too_large_or_none_is_rejected(tmp_path, monkeypatch, content, reason):
    monkeypatch.setattr(archives, "MAX_UNPACKED", 1000)
    (tmp_path / "a.tar.gz").write_bytes(content)
    with pytest.raises(Invalid, match=reason):
        unpack(tmp_path / "a.tar.gz", tmp_path / "out")
