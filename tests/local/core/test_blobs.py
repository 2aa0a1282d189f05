"""The bytes of artifacts: whole or not at all, and never outside their folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from mnist_deploy.local.core.blobs import Blobs


@pytest.fixture
def blobs(tmp_path) -> Blobs:
    return Blobs(tmp_path)


def files(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in folder.rglob("*") if path.is_file()]


def test_a_blob_is_what_was_written(blobs):
    assert blobs.file(blobs.write([b"one", b"", b"two"])).read_bytes() == b"onetwo"


def test_a_blob_that_was_cut_off_does_not_appear(blobs, tmp_path):
    def cut_off():
        yield b"half"
        raise ConnectionError("the sender is gone")

    for attempt in (blobs.write, lambda chunks: blobs.stage("upload", "1", chunks)):
        with pytest.raises(ConnectionError):
            attempt(cut_off())
        assert files(tmp_path) == []


def test_blocks_are_joined_in_order_and_those_of_two_uploads_do_not_mix(blobs, tmp_path):
    for upload in ("first", "second"):
        for block in ("2", "1", "never named"):
            blobs.stage(upload, block, [f"{upload} {block} ".encode()])
    assert blobs.file(blobs.commit("first", ["1", "2"])).read_bytes() == b"first 1 first 2 "
    blobs.discard("second")
    assert len(files(tmp_path)) == 1
    with pytest.raises(FileNotFoundError):
        blobs.commit("second", ["1"])
    assert len(files(tmp_path)) == 1


def test_what_an_earlier_process_staged_is_swept_away(blobs, tmp_path):
    blobs.stage("upload", "1", [b"left over"])
    Blobs(tmp_path)
    assert files(tmp_path) == []


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "", "a" * 31, "g" * 32, "..", "a/" * 16])
def test_no_name_leads_out_of_the_folder(blobs, name):
    with pytest.raises(ValueError, match=r"hexadecimal|base 16"):
        blobs.file(name)


def test_keep_only_removes_the_others(blobs, tmp_path):
    kept, _ = blobs.write([b"kept"]), blobs.write([b"gone"])
    blobs.keep_only({kept})
    assert files(tmp_path) == [b"kept"]
    for _ in range(2):
        blobs.remove(kept)
    assert files(tmp_path) == []
